// How pictures are shown: which channels, how bright, with or without the difference. One look for all pictures on the
// page, so that what differs between two of them is the cells and never the display.

import { $, decimal, make } from "./dom.js";
import { STAINS, colourOf, percentile } from "./pixels.js";

const BLACK_SHARE = 0.01,
  WHITE_SHARE = 0.998; // of the control's pixels lie below black and white
const LEAST_RANGE = 0.004;

export const look = { channels: [], on: new Set(), black: {}, white: {}, gain: 1, difference: false, touched: false };

const listeners = new Set();
export const onLook = (listener) => listeners.add(listener);
const changed = () => listeners.forEach((listener) => listener());

/** The channels of the pictures on the page; keeps what was chosen before where the names are the same. */
export function setChannels(names) {
  if (names.join() === look.channels.join()) return;
  look.channels = names;
  look.on = new Set(names);
  look.touched = false;
  for (const name of names) {
    look.black[name] = 0;
    look.white[name] = 0.3;
  }
  build();
}

/** Contrast limits from pictures of the control, the same for every picture. Leaves limits alone that were set by hand. */
export function limitsFrom(pictures, byHand = false) {
  if (!pictures.length || (look.touched && !byHand)) return;
  for (const name of look.channels) {
    look.black[name] = percentile(pictures, name, BLACK_SHARE);
    look.white[name] = Math.min(1, Math.max(percentile(pictures, name, WHITE_SHARE), look.black[name] + LEAST_RANGE));
  }
  if (byHand) {
    look.touched = false;
    look.gain = 1;
    $("gain").value = 0;
  }
  show();
  changed();
}

function build() {
  $("channels").replaceChildren(
    ...look.channels.map((name, i) => {
      const swatch = make("span", { class: "swatch", "aria-hidden": "true" });
      swatch.style.backgroundColor = "rgb(" + colourOf(name, i).join(" ") + ")";
      const words = "Channel " + name + (STAINS[name] ? ": " + STAINS[name] : "") + ". Key " + (i + 1);
      return make(
        "button",
        {
          type: "button",
          class: "channel",
          "data-channel": name,
          title: words,
          "aria-pressed": "true",
          click: () => toggle(name),
        },
        swatch,
        name,
      );
    }),
  );
  $("limits").replaceChildren(
    ...look.channels.flatMap((name) =>
      ["black", "white"].map((end) => {
        const input = make("input", {
          type: "range",
          min: 0,
          max: 100,
          step: 0.5,
          id: end + "-" + name,
          "data-channel": name,
          "data-end": end,
          input: (event) => limit(name, end, event.target.value),
        });
        return make(
          "div",
          {},
          make(
            "label",
            { for: end + "-" + name },
            name + " " + end + " at ",
            make("output", { id: end + "-" + name + "-says" }),
          ),
          input,
        );
      }),
    ),
  );
  show();
}

// The sliders are quadratic: most pictures live in the darkest tenth of the camera's range.
const toCamera = (slider) => (slider / 100) ** 2;
const toSlider = (camera) => 100 * Math.sqrt(camera);

function limit(name, end, slider) {
  const value = toCamera(Number(slider));
  if (end === "white") look.white[name] = Math.max(value, look.black[name] + LEAST_RANGE);
  else look.black[name] = Math.max(0, Math.min(value, look.white[name] - LEAST_RANGE));
  look.touched = true;
  show();
  changed();
}

export function toggle(name) {
  if (look.on.has(name) && look.on.size > 1) look.on.delete(name);
  else if (look.on.has(name))
    look.on = new Set(look.channels); // the last one: all again, never a black page
  else look.on.add(name);
  show();
  changed();
}

/** Shows one channel alone. */
export function only(name) {
  look.on = new Set([name]);
  show();
  changed();
}

function show() {
  for (const button of $("channels").children)
    button.setAttribute("aria-pressed", String(look.on.has(button.dataset.channel)));
  for (const name of look.channels) {
    for (const end of ["black", "white"]) {
      const input = $(end + "-" + name);
      if (!input) continue;
      input.value = toSlider(look[end][name]);
      $(end + "-" + name + "-says").textContent = decimal(100 * look[end][name], 1) + " %";
    }
  }
  const single = look.on.size === 1;
  $("channels-says").textContent = single
    ? [...look.on][0] + " alone, in grey."
    : "Colours are added; every picture has the same limits.";
}

export function start() {
  $("gain").addEventListener("input", () => {
    look.gain = 2 ** Number($("gain").value);
    $("gain-says").textContent = "× " + decimal(look.gain, 1);
    changed();
  });
  $("difference").addEventListener("change", () => {
    look.difference = $("difference").checked;
    changed();
  });
  document.addEventListener("keydown", (event) => {
    if (
      event.ctrlKey ||
      event.metaKey ||
      event.altKey ||
      event.target.closest("input, textarea, select, [contenteditable]")
    )
      return;
    if ($("answer").hidden || (document.querySelector("dialog[open]") && !$("viewer").open)) return;
    const i = "123456789".indexOf(event.key);
    if (i >= 0 && i < look.channels.length) toggle(look.channels[i]);
    else if (event.key === "0" && look.channels.length) {
      look.on = new Set(look.channels);
      show();
      changed();
    } else if (event.key === "d") {
      $("difference").checked = !$("difference").checked;
      $("difference").dispatchEvent(new Event("change"));
    }
  });
}
