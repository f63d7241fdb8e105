/** The arrays of one step in flight. */

import type { WorkerStep } from '../../contract/capture.ts';
import type { EngineConfig } from '../../contract/config.ts';

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/**
 * One step's `WorkerStep`, kept until the step's results are on the host. The next step is prepared before that, in a
 * frame of its own. Frames are recycled: there are as many as steps were ever in flight at once.
 */
export type StepFrame = {
  readonly step: Mutable<WorkerStep>;
  /** The requests' places in the scheduler's step, in the order in which they run. */
  readonly order: Uint32Array;
  /** A pass without a request: nobody wants its results. */
  isDummy: boolean;
  /** Before the step's own, as the router sees them: rows of other engines, and the input's requests that hold them. */
  rowsBefore: number;
  firstOrdinal: number;
  /** Rows that the rank routed alone, which the ranks of its engine bring together; 0: none, or nobody wants them. */
  shardRows: number;
  /** Bytes of the step's results: sampled tokens, or of a stage that sends them on hidden states, then rows. */
  sampledBytes: number;
  rowBytes: number;
};

export class StepFrames {
  readonly #config: EngineConfig;
  readonly #idle: StepFrame[] = [];

  constructor(config: EngineConfig) {
    this.#config = config;
  }

  take(): StepFrame {
    return this.#idle.pop() ?? newFrame(this.#config);
  }

  give(frame: StepFrame): void {
    this.#idle.push(frame);
  }
}

function newFrame({ maxNumSeqs, maxNumBatchedTokens }: EngineConfig): StepFrame {
  const perRequest = () => new Uint32Array(maxNumSeqs);
  return {
    order: perRequest(),
    isDummy: false,
    rowsBefore: 0,
    firstOrdinal: 0,
    shardRows: 0,
    sampledBytes: 0,
    rowBytes: 0,
    step: {
      stepId: 0,
      numRequests: 0,
      numTokens: 0,
      firstRow: 0,
      requestIndices: perRequest(),
      tokenStarts: perRequest(),
      tokenCounts: perRequest(),
      draftCounts: perRequest(),
      rowStarts: perRequest(),
      optedIn: new Uint8Array(maxNumSeqs),
      promptStarts: perRequest(),
      numPromptTokens: perRequest(),
      maxTokens: perRequest(),
      slotMapping: new Uint32Array(maxNumBatchedTokens),
      captureMetadata: null,
    },
  };
}
