// Pictures as numbers: fetched once as camera counts, then mixed, stretched and subtracted here. No request for a toggle.

import { door } from "./api.js";

const FULL = 65535; // camera counts that are 1
const KEPT = 300; // pictures in memory

/** Okabe and Ito's colours: told apart with every kind of colour blindness, also when they are added on black. */
export const COLOURS = {
  DNA: [86, 180, 233],
  ER: [0, 158, 115],
  RNA: [240, 228, 66],
  AGP: [213, 94, 0],
  Mito: [204, 121, 167],
};
const OTHERS = [
  [86, 180, 233],
  [0, 158, 115],
  [240, 228, 66],
  [213, 94, 0],
  [204, 121, 167],
  [230, 159, 0],
  [0, 114, 178],
];
export const colourOf = (name, i) => COLOURS[name] || OTHERS[i % OTHERS.length];
export const STAINS = {
  DNA: "nuclei (Hoechst 33342)",
  ER: "endoplasmic reticulum (concanavalin A)",
  RNA: "nucleoli and cytoplasmic RNA (SYTO 14)",
  AGP: "actin, Golgi, plasma membrane (phalloidin, wheat germ agglutinin)",
  Mito: "mitochondria (MitoTracker)",
};

const cache = new Map(); // address -> promise of {counts, channels, height, width}

/** The counts of one picture; `longest` asks for a smaller one. */
export function load(address, longest) {
  const url = address + "&format=raw" + (longest ? "&size=" + longest : "");
  if (!cache.has(url)) {
    if (cache.size >= KEPT) cache.delete(cache.keys().next().value);
    const answer = fetched(url);
    answer.catch(() => cache.delete(url)); // a picture that is not there yet may come
    cache.set(url, answer);
  }
  return cache.get(url);
}

async function fetched(url) {
  const response = await door(url);
  const [, height, width] = response.headers.get("X-Dopaint-Shape").split(",").map(Number);
  const channels = response.headers.get("X-Dopaint-Channels").split(",");
  return { counts: new Uint16Array(await response.arrayBuffer()), channels, height, width };
}

export const forget = () => cache.clear();

/** The camera value below which a share of the pixels of one channel of some pictures lies. */
export function percentile(pictures, channel, share) {
  const bins = new Uint32Array(4096);
  let n = 0;
  for (const one of pictures) {
    const size = one.height * one.width;
    const from = one.channels.indexOf(channel) * size;
    for (let i = from; i < from + size; i += 1) bins[one.counts[i] >> 4] += 1;
    n += size;
  }
  let below = 0;
  for (let bin = 0; bin < bins.length; bin += 1) {
    below += bins[bin];
    if (below >= share * n) return (bin + 1) / bins.length;
  }
  return 1;
}

const BRIGHTEST = 480; // of the sum of all colours that are on: beyond white, since few pixels are bright in all

/** Mixes the channels that are on: each from black to white, in its colour; a single one in grey. */
export function composite(picture, look) {
  const size = picture.height * picture.width;
  const out = new Uint8ClampedArray(4 * size);
  const planes = picture.channels.map((name, plane) => ({ name, plane })).filter(({ name }) => look.on.has(name));
  const colours = planes.map(({ name, plane }) => (planes.length === 1 ? [255, 255, 255] : colourOf(name, plane)));
  const sums = [0, 1, 2].map((c) => colours.reduce((sum, colour) => sum + colour[c], 0));
  const share = planes.length === 1 ? 1 : Math.min(1, BRIGHTEST / Math.max(...sums));
  for (let i = 0; i < size; i += 1) out[4 * i + 3] = 255;
  planes.forEach(({ name, plane }, n) => {
    const [red, green, blue] = colours[n].map((value) => value * share);
    const black = look.black[name] * FULL;
    const gain = look.gain / Math.max(1, (look.white[name] - look.black[name]) * FULL);
    for (let i = 0; i < size; i += 1) {
      const value = Math.min(1, Math.max(0, (picture.counts[plane * size + i] - black) * gain));
      out[4 * i] += red * value; // Uint8ClampedArray keeps sums at 255
      out[4 * i + 1] += green * value;
      out[4 * i + 2] += blue * value;
    }
  });
  return new ImageData(out, picture.width, picture.height);
}

const BRIGHTER = [255, 148, 40],
  DARKER = [64, 156, 255];

/** Compound minus control, averaged over the channels that are on, each in units of its own contrast range:
 *  orange where the compound is brighter, blue where the control is, black where they are equal. */
export function difference(compound, control, look) {
  const size = compound.height * compound.width;
  const out = new Uint8ClampedArray(4 * size);
  const on = compound.channels.filter((name) => look.on.has(name));
  for (let i = 0; i < size; i += 1) {
    let sum = 0;
    for (const name of on) {
      const at = compound.channels.indexOf(name) * size + i;
      sum += (compound.counts[at] - control.counts[at]) / ((look.white[name] - look.black[name]) * FULL);
    }
    const value = Math.max(-1, Math.min(1, (2 * look.gain * sum) / Math.max(1, on.length)));
    const colour = value > 0 ? BRIGHTER : DARKER;
    for (let c = 0; c < 3; c += 1) out[4 * i + c] = colour[c] * Math.abs(value);
    out[4 * i + 3] = 255;
  }
  return new ImageData(out, compound.width, compound.height);
}

/** Puts pixels on a canvas of their size; the style sheet stretches it. */
export function paint(canvas, image) {
  canvas.width = image.width;
  canvas.height = image.height;
  canvas.getContext("2d").putImageData(image, 0, 0);
}
