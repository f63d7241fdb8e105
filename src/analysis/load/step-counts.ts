/** The counts of one forward pass at a time, handed to whatever looks at passes. */

import type { CountedRow } from './row-scan.ts';

export type StepReader = Readonly<{ add: (counts: Uint32Array, numRows: number) => void }>;

export class StepCounts {
  readonly #numLayers: number;
  readonly #numExperts: number;
  readonly #topK: number;
  readonly #counts: Uint32Array;
  readonly #readers: readonly StepReader[];
  #numRows = 0;

  constructor(
    { numLayers, numExperts, topK }: Readonly<{ numLayers: number; numExperts: number; topK: number }>,
    readers: readonly StepReader[],
  ) {
    this.#numLayers = numLayers;
    this.#numExperts = numExperts;
    this.#topK = topK;
    this.#counts = new Uint32Array(numLayers * numExperts);
    this.#readers = readers;
  }

  add({ ids, at, times }: Pick<CountedRow, 'ids' | 'at' | 'times'>): void {
    for (let layer = 0; layer < this.#numLayers; layer++) {
      for (let k = 0; k < this.#topK; k++) {
        const id = ids[at + layer * this.#topK + k]!;
        if (id >= 0 && id < this.#numExperts) this.#counts[layer * this.#numExperts + id]! += times;
      }
    }
    this.#numRows += times;
  }

  /** A pass all of whose rows were left out is none. */
  endStep(): void {
    if (this.#numRows === 0) return;
    for (const reader of this.#readers) reader.add(this.#counts, this.#numRows);
    this.#counts.fill(0);
    this.#numRows = 0;
  }
}
