/** How ranks are numbered: over data-parallel engines, over their stages, over the tensor-parallel ranks of each. */

import { RoutedExpertsError } from '../../../contract/errors.ts';

/** Sizes are ≥ 1. Expert parallelism spans all ranks, and has no size of its own. */
export type RankGridSizes = Readonly<{ dataParallel: number; pipelineParallel: number; tensorParallel: number }>;

/** `engine`: the data-parallel one. */
export type RankPlace = Readonly<{ engine: number; stage: number; tensorRank: number }>;

/**
 * vLLM's order: tensor-parallel ranks are neighbours.
 *
 *     rank = (engine · pipelineParallel + stage) · tensorParallel + tensorRank
 */
export class RankGrid {
  readonly sizes: RankGridSizes;
  readonly ranksPerEngine: number;
  readonly numRanks: number;

  constructor(sizes: RankGridSizes) {
    for (const [name, size] of Object.entries(sizes)) {
      if (!Number.isInteger(size) || size < 1) throw RoutedExpertsError.of('BAD_VALUE', name, size, 'ranks ≥ 1');
    }
    this.sizes = sizes;
    this.ranksPerEngine = sizes.pipelineParallel * sizes.tensorParallel;
    this.numRanks = sizes.dataParallel * this.ranksPerEngine;
  }

  rankOf({ engine, stage, tensorRank }: RankPlace): number {
    const { pipelineParallel, tensorParallel } = this.sizes;
    return (engine * pipelineParallel + stage) * tensorParallel + tensorRank;
  }

  placeOf(rank: number): RankPlace {
    const { pipelineParallel, tensorParallel } = this.sizes;
    const stageOfAll = Math.floor(rank / tensorParallel);
    return {
      engine: Math.floor(stageOfAll / pipelineParallel),
      stage: stageOfAll % pipelineParallel,
      tensorRank: rank % tensorParallel,
    };
  }

  /** As `rank 5 (engine 1, tensor rank 1)`; what there is only one of is left out. */
  nameOf(rank: number): string {
    const { dataParallel, pipelineParallel, tensorParallel } = this.sizes;
    const { engine, stage, tensorRank } = this.placeOf(rank);
    const parts: string[] = [];
    if (dataParallel > 1) parts.push(`engine ${engine}`);
    if (pipelineParallel > 1) parts.push(`stage ${stage}`);
    if (tensorParallel > 1) parts.push(`tensor rank ${tensorRank}`);
    return parts.length === 0 ? `rank ${rank}` : `rank ${rank} (${parts.join(', ')})`;
  }
}
