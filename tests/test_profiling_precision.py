"""Average precision of rows with masks: equal to scikit-learn, ties included."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from profiling.precision import row_precision


@pytest.mark.parametrize("digits", [1, 12])
@pytest.mark.parametrize("share", [0.03, 0.5])
def test_rows_equal_scikit_learn_on_what_counts(digits, share):
    rng = np.random.default_rng(int(100 * share) + digits)
    similar = np.round(rng.normal(size=(50, 70)), digits)
    role = rng.random((50, 70))
    positive, negative = role < share, role > 0.6
    positive[3] = False
    positive[4] = True
    negative[4] = False
    negative[5] = False
    got = row_precision(similar, positive, negative)
    assert np.isnan(got[3])
    assert got[4] == pytest.approx(1.0)
    for i in np.flatnonzero(positive.any(axis=1)):
        used = positive[i] | negative[i]
        want = average_precision_score(positive[i, used], similar[i, used])
        assert got[i] == pytest.approx(want, abs=1e-12)
