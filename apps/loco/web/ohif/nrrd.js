// Label maps between OHIF and the server. A grid is { dimensions: [x, y, z], origin, axes }: where voxel (0, 0, 0) lies and
// the three steps from one voxel to the next, mm, in DICOM's axes (left, posterior, superior).

const TOLERANCE = 0.05; // of a voxel

// Uncompressed NRRD of 8-bit values: { dimensions, grid or null, data }. A two-dimensional one gets a third dimension of 1.
export function parse(buffer) {
  const bytes = new Uint8Array(buffer);
  const end = bytes.findIndex((b, i) => b === 10 && bytes[i + 1] === 10);
  const lines = new TextDecoder().decode(bytes.subarray(0, Math.max(end, 0))).split('\n');
  const fields = Object.fromEntries(lines.filter(l => l.includes(': ')).map(l => l.split(/: (.*)/s, 2)));
  if (!lines[0].startsWith('NRRD') || fields.encoding !== 'raw') {
    throw new Error('Expected the mask as an uncompressed NRRD file, but got something else; run the model again.');
  }
  const dimensions = fields.sizes.split(' ').map(Number);
  const data = bytes.subarray(end + 2);
  const vectors = (fields['space directions'] || '').match(/\([^)]*\)/g) || [];
  const grid =
    vectors.length === 3
      ? toLps(fields.space, { dimensions, origin: vector(fields['space origin']), axes: vectors.map(vector) })
      : null;
  return { dimensions: [...dimensions, 1].slice(0, 3), grid, data };
}

const vector = text => text.replace(/[()]/g, '').split(',').map(Number);

function toLps(space, grid) {
  if (!/^(right-anterior-superior|RAS)$/.test(space)) {
    return grid;
  }
  const turned = ([x, y, z]) => [-x, -y, z];
  return { dimensions: grid.dimensions, origin: turned(grid.origin), axes: grid.axes.map(turned) };
}

// An NRRD file of 8-bit values on a grid.
export function write(data, grid) {
  const triple = v => `(${v.join(',')})`;
  const header = [
    'NRRD0004',
    'type: unsigned char',
    'dimension: 3',
    'space: left-posterior-superior',
    `sizes: ${grid.dimensions.join(' ')}`,
    `space directions: ${grid.axes.map(triple).join(' ')}`,
    'kinds: domain domain domain',
    'encoding: raw',
    `space origin: ${triple(grid.origin)}`,
  ].join('\n');
  return new File([`${header}\n\n`, data], 'label.nrrd', { type: 'application/octet-stream' });
}

// A grey PNG file of 8-bit values, rows of `width`: for pictures, which have no place in space.
export async function writePicture(data, width, height) {
  const rows = new Uint8Array((width + 1) * height); // each row begins with its filter, 0 = none
  for (let y = 0; y < height; y++) {
    rows.set(data.subarray(y * width, (y + 1) * width), y * (width + 1) + 1);
  }
  const packed = new Blob([rows]).stream().pipeThrough(new CompressionStream('deflate'));
  const header = new DataView(new ArrayBuffer(13)); // width, height, 8 bits, grey, no interlacing
  header.setUint32(0, width);
  header.setUint32(4, height);
  header.setUint8(8, 8);
  const parts = [
    new Uint8Array([137, 80, 78, 71, 13, 10, 26, 10]),
    chunk('IHDR', new Uint8Array(header.buffer)),
    chunk('IDAT', new Uint8Array(await new Response(packed).arrayBuffer())),
    chunk('IEND', new Uint8Array(0)),
  ];
  return new File(parts, 'label.png', { type: 'image/png' });
}

function chunk(name, content) {
  const bytes = new Uint8Array(content.length + 12);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, content.length);
  bytes.set(new TextEncoder().encode(name), 4);
  bytes.set(content, 8);
  view.setUint32(content.length + 8, crc32(bytes.subarray(4, content.length + 8)));
  return bytes;
}

function crc32(bytes) {
  let crc = -1;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) {
      crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
    }
  }
  return ~crc >>> 0;
}

// Values of `from` in the voxel order of `to`; both describe the same voxels, with their axes in another order or reversed.
export function reordered(data, from, to) {
  const place = point => solve(from.axes, point.map((p, i) => p - from.origin[i])).map(whole);
  const start = place(to.origin);
  const steps = to.axes.map(axis => place(axis.map((a, i) => a + from.origin[i])));
  const stride = [1, from.dimensions[0], from.dimensions[0] * from.dimensions[1]];
  const offset = index => index.reduce((sum, n, axis) => sum + n * stride[axis], 0);
  const last = to.dimensions.map((n, axis) => n - 1).reduce(
    (corner, n, axis) => corner.map((c, i) => c + n * steps[axis][i]), start);
  const inside = corner => corner.every((n, axis) => n >= 0 && n < from.dimensions[axis]);
  const same = from.dimensions.reduce((a, b) => a * b) === to.dimensions.reduce((a, b) => a * b);
  if (!same || !inside(start) || !inside(last)) {
    throw new Error('The mask lies on other voxels than the image that is shown; open the image again.');
  }
  const result = new Uint8Array(data.length);
  const [stepX, stepY, stepZ] = steps.map(offset);
  let target = 0;
  for (let z = 0; z < to.dimensions[2]; z++) {
    for (let y = 0; y < to.dimensions[1]; y++) {
      let source = offset(start) + z * stepZ + y * stepY;
      for (let x = 0; x < to.dimensions[0]; x++, source += stepX) {
        result[target++] = data[source];
      }
    }
  }
  return result;
}

function whole(value) {
  const nearest = Math.round(value);
  if (Math.abs(value - nearest) > TOLERANCE) {
    throw new Error('The mask and the image that is shown have different voxels; open the image again.');
  }
  return nearest;
}

// x with axes[0] * x[0] + axes[1] * x[1] + axes[2] * x[2] = v (Cramer's rule)
function solve(axes, v) {
  const det = (a, b, c) =>
    a[0] * (b[1] * c[2] - b[2] * c[1]) - a[1] * (b[0] * c[2] - b[2] * c[0]) + a[2] * (b[0] * c[1] - b[1] * c[0]);
  const [a, b, c] = axes;
  const whole = det(a, b, c);
  return [det(v, b, c) / whole, det(a, v, c) / whole, det(a, b, v) / whole];
}
