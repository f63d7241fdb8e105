/** Whether what a worker half returned can be read from the device, and given away to the engine's thread. */

import type { DeviceRange } from '../../contract/capture.ts';
import type { DeviceBuffer } from '../../contract/device.ts';
import type { RoutedExpertDeltas } from '../../contract/model-runner-output.ts';
import { BrokenContract, shown } from './hook-call.ts';

/** The buffers that a half was given, and those that it has made. */
export type KnownBuffers = Readonly<{ has: (buffer: DeviceBuffer) => boolean }>;

/**
 * Throws BrokenContract for a range that the device would refuse, or that what it is copied into has no room for.
 */
export function checkRange(
  range: DeviceRange,
  { buffers, mostBytes }: Readonly<{ buffers: KnownBuffers; mostBytes: number }>,
): void {
  const { buffer, byteOffset = 0, byteLength } = range ?? {};
  if (!buffers.has(buffer)) throw new BrokenContract('it returned no buffer of this device to read from');
  if (!isWord(byteOffset) || !isWord(byteLength)) {
    const asked = `${shown(byteLength)} bytes from byte ${shown(byteOffset)} on`;
    throw new BrokenContract(`it asked for ${asked}; give multiples of 4`);
  }
  const most = Math.min(mostBytes, buffer.byteLength - byteOffset);
  if (byteLength <= most) return;
  throw new BrokenContract(`it asked for ${byteLength} bytes of "${buffer.label}"; there may be ${Math.max(0, most)}`);
}

/** Throws BrokenContract. The buffer of the rows is given away: it must be theirs alone, and hold them. */
export function checkDeltas(
  { rows, numRows, index, indexLength }: RoutedExpertDeltas,
  { lent, bytesPerRow }: Readonly<{ lent: Uint8Array | null; bytesPerRow: number }>,
): void {
  if (!(rows instanceof Uint8Array) || !(index instanceof Uint32Array)) {
    throw new BrokenContract('it returned no rows (Uint8Array) or no index (Uint32Array)');
  }
  if (rows.buffer === lent?.buffer) throw new BrokenContract('it returned the bytes that it was lent; copy them');
  const { buffer } = rows;
  if (!(buffer instanceof ArrayBuffer) || rows.byteOffset !== 0 || rows.byteLength !== buffer.byteLength) {
    throw new BrokenContract('its rows do not fill an ArrayBuffer of their own, from its first byte on');
  }
  if (buffer.detached) throw new BrokenContract('its rows lie in a buffer that it has given away before');
  const most = Math.floor(rows.byteLength / bytesPerRow);
  if (!Number.isSafeInteger(numRows) || numRows < 0 || numRows > most) {
    throw new BrokenContract(`numRows is ${shown(numRows)}; its rows have room for ${most}`);
  }
  if (!Number.isSafeInteger(indexLength) || indexLength < 0 || indexLength > index.length) {
    throw new BrokenContract(`indexLength is ${shown(indexLength)}; its index has ${index.length} entries`);
  }
}

/** A number of bytes that a copy on the device can have. */
function isWord(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0 && value % 4 === 0;
}
