/** `pack.wgsl` in TypeScript: gathers rows of expert ids, dense and narrow. */

import type { ModelConfig } from '../../../contract/config.ts';
import { rowDtype } from '../kernel-shape.ts';

/**
 * @param routedExperts `[maxNumBatchedTokens, L, K]` u32 ids
 * @param rows `[1 + maxNumBatchedTokens]` how many rows, then their numbers
 * @param packed the rows, dense, one byte an id for up to 256 experts, else two, little-endian; the last word is filled
 * up with 0
 */
export function pack(model: ModelConfig, routedExperts: Uint32Array, rows: Uint32Array, packed: Uint32Array): void {
  const rowLength = model.numLayers * model.topK;
  const idsPerWord = rowDtype(model.numExperts) === 'uint8' ? 4 : 2;
  const bitsPerId = 32 / idsPerWord;
  const numIds = rows[0]! * rowLength;
  const numWords = Math.ceil(numIds / idsPerWord);
  let row = 0;
  let column = 0;
  let source = rows[1]! * rowLength;
  for (let word = 0; word < numWords; word++) {
    let bits = 0;
    for (let part = 0; part < idsPerWord && row < rows[0]!; part++) {
      bits |= routedExperts[source + column]! << (bitsPerId * part);
      column += 1;
      if (column === rowLength) {
        column = 0;
        row += 1;
        source = rows[1 + row]! * rowLength;
      }
    }
    packed[word] = bits;
  }
}
