/** A rank's part in a pipeline of stages: its place in it, and the waits that the links themselves do not know. */

import type { PipelineConfig, WorkerConfig } from '../../contract/config.ts';
import { LinkEnd, StageLinks, type LinkSizes } from '../pipeline/stages/stage-links.ts';
import { stagesOf, type Stage } from '../pipeline/stages/stage-plan.ts';

type Pipelined = Pick<WorkerConfig, 'numRanks' | 'model' | 'engine' | 'queueDepth'>;

/** The links of an engine's ranks, in memory that their threads share. */
export function newPipeline(config: Pipelined, split: readonly number[]): PipelineConfig {
  const words = StageLinks.numWords(linkSizes(config, split));
  return { split, links: new SharedArrayBuffer(4 * words) };
}

export function linksOf(config: Pipelined, { split, links }: PipelineConfig): StageLinks {
  return new StageLinks(linkSizes(config, split), new Int32Array(links));
}

function linkSizes({ numRanks, engine, queueDepth }: Pipelined, split: readonly number[]): LinkSizes {
  const { maxNumBatchedTokens } = engine;
  return { tensorParallel: numRanks / split.length, numStages: split.length, depth: queueDepth, maxNumBatchedTokens };
}

/** Wakes readers that wait at these words. */
export function notifyAll({ words }: StageLinks | LinkEnd, states: readonly number[]): void {
  for (const state of states) Atomics.notify(words, state);
}

export class StageMember {
  readonly stage: Stage;
  readonly #sender: LinkEnd | null;
  readonly #reader: LinkEnd | null;

  constructor(config: Pipelined & Pick<WorkerConfig, 'rank'>, pipeline: PipelineConfig) {
    const tensorParallel = config.numRanks / pipeline.split.length;
    const index = Math.floor(config.rank / tensorParallel);
    const links = linksOf(config, pipeline);
    this.stage = stagesOf(config.model, pipeline.split)[index]!;
    this.#sender = links.sender(index, config.rank % tensorParallel);
    this.#reader = links.reader(index, config.rank % tensorParallel);
  }

  send(stepId: number, hidden: Uint32Array): void {
    const { stateWord } = this.#sender!;
    this.#sender!.send(stepId, hidden);
    Atomics.notify(this.#sender!.words, stateWord);
  }

  /** Resolves when the stage before has run the step. The thread goes on meanwhile. Rejects if it will not. */
  async receive(stepId: number): Promise<Uint32Array<ArrayBuffer>> {
    const reader = this.#reader!;
    for (;;) {
      const hidden = reader.take(stepId);
      if (hidden !== null) return hidden;
      const wait = Atomics.waitAsync(reader.words, reader.stateWord, LinkEnd.EMPTY);
      if (wait.async) await wait.value;
    }
  }

  /** A step has failed: the stage behind would wait for it for ever. */
  fail(): void {
    if (this.#sender !== null) notifyAll(this.#sender, this.#sender.close());
  }
}
