/** What an executor does otherwise where its ranks are the stages of a pipeline. */

import type { WorkerConfig } from '../../contract/config.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';
import type { ModelRunnerOutput } from '../../contract/model-runner-output.ts';
import { DEFAULT_CLOCK_TIMES } from '../../kernels/device/clock/clock-times.ts';
import { countModelLayers } from '../../kernels/model/model-layers.ts';
import { requireAgreement } from '../pipeline/rank-agreement.ts';
import { StageJoiner } from '../pipeline/stages/stage-joiner.ts';
import { stagesOf, type Stage } from '../pipeline/stages/stage-plan.ts';
import type { StageLinks } from '../pipeline/stages/stage-links.ts';
import { linksOf, newPipeline, notifyAll } from './stage-member.ts';

/** Ranks are numbered over stages, and in each over its tensor-parallel ranks (`RankGrid`). */
export class RankStages {
  readonly #config: Omit<WorkerConfig, 'rank'>;
  readonly #stages: readonly Stage[];
  readonly #links: StageLinks;
  readonly #joiner: StageJoiner;
  readonly #tensorParallel: number;
  /** The last stage's part of what was joined: the tokens lie in its memory. */
  readonly #lasts: WeakMap<ModelRunnerOutput, ModelRunnerOutput> = new WeakMap();

  /** Throws BAD_VALUE for a split that is none of the model, and for ranks that the stages cannot share alike. */
  constructor(config: Omit<WorkerConfig, 'rank' | 'pipeline'>, split: readonly number[]) {
    const { model, numRanks } = config;
    if (numRanks % split.length !== 0) {
      const wanted = `a number that ${split.length} pipeline stages share alike`;
      throw RoutedExpertsError.of('BAD_VALUE', 'numRanks', numRanks, wanted);
    }
    this.#stages = stagesOf(model, split);
    this.#tensorParallel = numRanks / split.length;
    const pipeline = newPipeline(config, split);
    this.#config = { ...config, pipeline };
    this.#links = linksOf(config, pipeline);
    this.#joiner = new StageJoiner(model, this.#stages);
  }

  stageOf(rank: number): Stage {
    return this.#stages[Math.floor(rank / this.#tensorParallel)]!;
  }

  /** What a rank is told: of a modelled or stretched step its stage takes its share. */
  configOf(rank: number): WorkerConfig {
    const { model, device, ballastMs, clockTimes = DEFAULT_CLOCK_TIMES } = this.#config;
    const { from, to } = this.stageOf(rank);
    const share = (to - from) / countModelLayers(model);
    const { stepMs, perTokenUs } = clockTimes;
    const times = { ...clockTimes, stepMs: share * stepMs, perTokenUs: share * perTokenUs };
    return {
      ...this.#config,
      rank,
      ballastMs: share * ballastMs,
      ...(device === 'clock' ? { clockTimes: times } : {}),
    };
  }

  /** The first rank of each stage. */
  firstsOf<T>(ranks: readonly T[]): T[] {
    return ranks.filter((_, rank) => rank % this.#tensorParallel === 0);
  }

  /** The step's output, of those of all ranks. `recycle` is called for the parts that are not needed any more. */
  join(outputs: readonly ModelRunnerOutput[], recycle: (output: ModelRunnerOutput) => void): ModelRunnerOutput {
    const last = outputs.length - this.#tensorParallel;
    requireAgreement(outputs.slice(last));
    const joined = this.#joiner.join(this.firstsOf(outputs));
    this.#lasts.set(joined, outputs[last]!);
    for (const [rank, output] of outputs.entries()) if (rank !== last) recycle(output);
    return joined;
  }

  /** Takes back the rows of an output that was joined, and returns the part that has its tokens; else `null`. */
  takeApart(output: ModelRunnerOutput): ModelRunnerOutput | null {
    const last = this.#lasts.get(output);
    if (last === undefined) return null;
    this.#lasts.delete(output);
    if (output.routedExpertDeltas !== null) this.#joiner.recycle(output.routedExpertDeltas.rows);
    return last;
  }

  /** The keys of each rank, from `[numBlocks, stages, blockSize, 2]`. */
  keysOfRanks(keys: Uint32Array, numBlocks: number): Uint32Array<ArrayBuffer>[] {
    const numStages = this.#stages.length;
    const wordsPerBlock = numBlocks === 0 ? 0 : keys.length / (numBlocks * numStages);
    return Array.from({ length: this.#config.numRanks }, (_, rank) => {
      const stage = Math.floor(rank / this.#tensorParallel);
      const own = new Uint32Array(numBlocks * wordsPerBlock);
      for (let block = 0; block < numBlocks; block++) {
        const from = (block * numStages + stage) * wordsPerBlock;
        own.set(keys.subarray(from, from + wordsPerBlock), block * wordsPerBlock);
      }
      return own;
    });
  }

  /** No stage waits for another any more. */
  close(): void {
    notifyAll(this.#links, this.#links.close());
  }
}

/** `[numBlocks, stages, …]` of the keys `[numBlocks, …]` of each stage. */
export function interleaved(
  ofStages: readonly Uint32Array<ArrayBuffer>[],
  numBlocks: number,
): Uint32Array<ArrayBuffer> {
  if (ofStages.length === 1) return ofStages[0]!;
  const words = numBlocks === 0 ? 0 : ofStages[0]!.length / numBlocks;
  const all = new Uint32Array(ofStages.length * numBlocks * words);
  for (const [stage, keys] of ofStages.entries()) {
    for (let block = 0; block < numBlocks; block++) {
      all.set(keys.subarray(block * words, (block + 1) * words), (block * ofStages.length + stage) * words);
    }
  }
  return all;
}
