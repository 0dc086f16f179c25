"""Pictures to profiles to mechanisms.

What comes in: pictures with named channels, or tables of features. What goes out: profiles, sub-profiles,
Biosimilarities and calls with their chance levels and intervals. This room never sees a molecule: compounds are rows
with a name.
"""
