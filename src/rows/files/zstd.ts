/** Zstandard, as Node has it. */

import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import type { Compress } from '../packed/write-packed.ts';

/** Fast enough for a block in a turn of the event loop. */
const LEVEL = 3;

export const compressZstd: Compress = (bytes) =>
  zstdCompressSync(bytes, { params: { [constants.ZSTD_c_compressionLevel]: LEVEL } });

export function decompressZstd(frame: Uint8Array): Uint8Array {
  return zstdDecompressSync(frame, { maxOutputLength: 2 ** 22 });
}
