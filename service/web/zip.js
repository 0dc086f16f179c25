// Pictures into one zip file, stored without compression: what the service takes as an upload.

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let k = 0; k < 8; k += 1) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1;
  return c;
});

function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = TABLE[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

/** A zip of [{name, bytes}] as a Blob (PKWARE's APPNOTE 6.3, sections 4.3.7, 4.3.12 and 4.3.16; below 4 GiB). */
export function zip(files) {
  const parts = [],
    directory = [];
  let offset = 0,
    length = 0;
  for (const { name, bytes } of files) {
    const path = new TextEncoder().encode(name),
      crc = crc32(bytes);
    const common = [20, 0x0800, 0, 0, 0x21]; // version, UTF-8 names, stored, 1980-01-01
    const local = header(0x04034b50, common, crc, bytes.length, path.length, 30);
    parts.push(local, path, bytes);
    const central = header(0x02014b50, [20, ...common], crc, bytes.length, path.length, 46);
    new DataView(central.buffer).setUint32(42, offset, true);
    directory.push(central, path);
    offset += local.length + path.length + bytes.length;
    length += central.length + path.length;
  }
  const end = new DataView(new ArrayBuffer(22));
  end.setUint32(0, 0x06054b50, true);
  for (const at of [8, 10]) end.setUint16(at, files.length, true);
  end.setUint32(12, length, true);
  end.setUint32(16, offset, true);
  return new Blob([...parts, ...directory, new Uint8Array(end.buffer)], { type: "application/zip" });
}

function header(signature, words, crc, size, name, bytes) {
  const view = new DataView(new ArrayBuffer(bytes));
  view.setUint32(0, signature, true);
  words.forEach((word, i) => view.setUint16(4 + 2 * i, word, true));
  const at = 4 + 2 * words.length;
  view.setUint32(at, crc, true);
  view.setUint32(at + 4, size, true);
  view.setUint32(at + 8, size, true);
  view.setUint16(at + 12, name, true);
  return new Uint8Array(view.buffer);
}
