/** How much the experts of one layer say about those of the next. */

import type { Capture } from '../../rows/captures/capture.ts';
import { countsOf } from '../counts.ts';
import { greatest, quotient, sum, topIndices } from '../statistics.ts';
import { halves, staticHits } from './expert-cache.ts';

/** From a layer to the next listed one. Hit rates are shares of the K experts that were really chosen. */
export type Affinity = Readonly<{
  from: number;
  to: number;
  /** `[E][E]`: rows that chose e in the layer and e' in the next. */
  counts: readonly Uint32Array[];
  nextBest: number | null;
  mutualInformationBits: number | null;
  hitInSample: number | null;
  hitSplit: number | null;
  popularityInSample: number | null;
  popularitySplit: number | null;
}>;

/** The part of it that is fitted on one half and tested on the other: a third of the time. */
export type Prediction = Omit<Affinity, 'counts' | 'hitInSample' | 'popularityInSample'>;

export function predictions(capture: Capture): Prediction[] {
  const { layers, numRows, topK } = capture;
  const middle = Math.floor(numRows / 2);
  const split = staticHits(...halves(capture), layers.length, [topK]);
  return layers.slice(1).map((to, l): Prediction => {
    const whole = new NextLayer(capture, l, 0, numRows);
    return {
      from: layers[l]!,
      to,
      nextBest: whole.nextBest(),
      mutualInformationBits: whole.mutualInformationBits(),
      hitSplit: new NextLayer(capture, l, 0, middle).hitRate(capture, l, middle),
      popularitySplit: split[l + 1]![0]!,
    };
  });
}

export function affinities(capture: Capture): Affinity[] {
  const { layers, numRows, topK } = capture;
  const counts = countsOf(capture);
  const popularity = staticHits(counts, counts, layers.length, [topK]);
  return predictions(capture).map((prediction, l): Affinity => {
    const whole = new NextLayer(capture, l, 0, numRows);
    return {
      ...prediction,
      counts: whole.rows(),
      hitInSample: whole.hitRate(capture, l, 0),
      popularityInSample: popularity[l + 1]![0]!,
    };
  });
}

/** Joint counts of two neighbouring layers over some rows. */
class NextLayer {
  readonly #numExperts: number;
  readonly #joint: Uint32Array;
  /** Selections in the first of the layers. */
  readonly #chosen: Uint32Array;

  constructor({ ids, topK, numExperts, layers }: Capture, layer: number, from: number, to: number) {
    this.#numExperts = numExperts;
    this.#joint = new Uint32Array(numExperts * numExperts);
    this.#chosen = new Uint32Array(numExperts);
    const width = layers.length * topK;
    for (let row = from; row < to; row++) {
      const at = row * width + layer * topK;
      for (let i = 0; i < topK; i++) {
        const id = ids[at + i]!;
        this.#chosen[id]!++;
        for (let k = topK; k < 2 * topK; k++) this.#joint[id * numExperts + ids[at + k]!]!++;
      }
    }
  }

  rows(): Uint32Array[] {
    const size = this.#numExperts;
    return Array.from({ length: size }, (_, e) => this.#joint.subarray(e * size, (e + 1) * size));
  }

  nextBest(): number | null {
    return quotient(sum(this.rows().map(greatest)), sum(this.#chosen));
  }

  mutualInformationBits(): number | null {
    const total = sum(this.#joint);
    if (total === 0) return null;
    const next = new Float64Array(this.#numExperts);
    const before = new Float64Array(this.#numExperts);
    this.rows().forEach((row, e) =>
      row.forEach((count, other) => {
        before[e]! += count;
        next[other]! += count;
      }),
    );
    let bits = 0;
    this.rows().forEach((row, e) =>
      row.forEach((count, other) => {
        if (count > 0) bits += (count / total) * Math.log2((count * total) / (before[e]! * next[other]!));
      }),
    );
    return bits;
  }

  /** Predicts, for the rows from `from` on, the K experts e' with the greatest Σ joint[e][e'] / chosen[e]. */
  hitRate({ ids, topK, numRows, layers }: Capture, layer: number, from: number): number | null {
    const width = layers.length * topK;
    const size = this.#numExperts;
    const scores = new Float64Array(size);
    let hits = 0;
    for (let row = from; row < numRows; row++) {
      const at = row * width + layer * topK;
      scores.fill(0);
      for (let i = 0; i < topK; i++) {
        const id = ids[at + i]!;
        const chosen = Math.max(1, this.#chosen[id]!);
        for (let e = 0; e < size; e++) scores[e]! += this.#joint[id * size + e]! / chosen;
      }
      const predicted = new Set(topIndices(scores, topK));
      for (let k = topK; k < 2 * topK; k++) if (predicted.has(ids[at + k]!)) hits++;
    }
    return quotient(hits, (numRows - from) * topK);
  }
}
