/**
 * The choices of one client's request while the engine works on them: outputs flow in at the engine's pace, out at the
 * client's.
 */

import { RowJoiner } from '../../capture/row-joiner.ts';
import type { EngineCoreOutput, FinishReason, PrefillStatistics } from '../../contract/engine-core-output.ts';
import type { RoutedRows } from '../../contract/routed-rows.ts';
import { HttpError } from '../http-error.ts';
import type { TransferAnswer } from '../kv/transfer-params.ts';

/** One choice. Its tokens are those that came so far; everything else is set at its end. */
export type Choice = {
  readonly index: number;
  readonly requestId: string;
  readonly promptTokenIds: Uint32Array;
  readonly tokenIds: number[];
  finishReason: FinishReason | null;
  stopReason: number | null;
  prefill: PrefillStatistics | null;
  rows: RoutedRows | null;
  /** For the proxy: where the KV of this choice can be fetched. */
  kvTransfer: TransferAnswer | null;
  /** The step that computed each position; `null`: nobody wants to know. */
  steps: Int32Array | null;
  /** Why it ended with `error`, if the engine itself works on. */
  failure: HttpError | null;
};

/** What is new of one choice since the last update. */
export type ChoiceUpdate = Readonly<{ choice: Choice; newTokenIds: readonly number[]; isLast: boolean }>;

/**
 *     engine ──add──▶ [ tokens of choice 0 │ … of choice 1 ] ──next──▶ writer ──▶ socket
 *
 * A reader that is slower than the engine gets the tokens of many steps in one update. Tokens that wait are bounded by
 * the choices' maximal lengths, and nothing is rendered before the socket takes it.
 */
export class Generation {
  readonly choices: readonly Choice[];
  readonly #placeOf: Map<string, number>;
  readonly #joiners: Map<number, RowJoiner> = new Map();
  /** How many tokens of each choice were handed out; its length + 1 after its end. */
  readonly #handedOut: number[];
  #numUnfinished: number;
  #wake: (() => void) | null = null;

  constructor(requests: readonly Readonly<{ requestId: string; promptTokenIds: Uint32Array }>[]) {
    this.choices = requests.map(({ requestId, promptTokenIds }, index) => ({
      index,
      requestId,
      promptTokenIds,
      tokenIds: [],
      finishReason: null,
      stopReason: null,
      prefill: null,
      rows: null,
      kvTransfer: null,
      steps: null,
      failure: null,
    }));
    this.#placeOf = new Map(requests.map(({ requestId }, i) => [requestId, i]));
    this.#handedOut = requests.map(() => 0);
    this.#numUnfinished = requests.length;
  }

  /** Requests that were aborted before the engine knew of them. */
  static aborted(requests: ConstructorParameters<typeof Generation>[0]): Generation {
    const generation = new Generation(requests);
    for (const choice of generation.choices) choice.finishReason = 'abort';
    generation.#numUnfinished = 0;
    return generation;
  }

  get isFinished(): boolean {
    return this.#numUnfinished === 0;
  }

  /** Requests that the engine still works on. */
  get unfinishedIds(): string[] {
    return this.choices.filter((choice) => choice.finishReason === null).map((choice) => choice.requestId);
  }

  /** Returns the choice of a request. */
  choiceOf(requestId: string): Choice {
    return this.choices[this.#placeOf.get(requestId)!]!;
  }

  /** Takes in an output of the engine for one of the choices. */
  add(output: EngineCoreOutput, { kvTransfer, steps }: Pick<Choice, 'kvTransfer' | 'steps'>): Choice {
    const place = this.#placeOf.get(output.requestId)!;
    const choice = this.choices[place]!;
    for (const token of output.newTokenIds) choice.tokenIds.push(token);
    if (output.routedExperts !== null) this.#joiner(place).add(output.routedExperts);
    if (output.finishReason !== null) {
      choice.finishReason = output.finishReason;
      if (output.failure !== undefined) choice.failure ??= HttpError.from(output.failure);
      choice.stopReason = output.stopReason;
      choice.kvTransfer = kvTransfer;
      choice.steps = steps;
      choice.prefill = output.prefill;
      choice.rows = this.#joiners.get(place)?.rows ?? null;
      this.#joiners.delete(place);
      this.#numUnfinished--;
    }
    this.#wake?.();
    this.#wake = null;
    return choice;
  }

  /**
   * Waits for updates and returns all of them. None: every choice has ended and was handed out. One reader at a time.
   */
  async next(): Promise<ChoiceUpdate[]> {
    for (;;) {
      const updates = this.#takeUpdates();
      if (updates.length > 0 || this.isFinished) return updates;
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  /** Waits until every choice has ended. */
  async finished(): Promise<void> {
    while (!this.isFinished) await new Promise<void>((resolve) => (this.#wake = resolve));
  }

  #takeUpdates(): ChoiceUpdate[] {
    const updates: ChoiceUpdate[] = [];
    for (const choice of this.choices) {
      const from = this.#handedOut[choice.index]!;
      const isLast = choice.finishReason !== null;
      const end = choice.tokenIds.length + (isLast ? 1 : 0);
      if (from >= end) continue;
      this.#handedOut[choice.index] = end;
      updates.push({ choice, newTokenIds: choice.tokenIds.slice(from), isLast });
    }
    return updates;
  }

  #joiner(place: number): RowJoiner {
    const joiner = this.#joiners.get(place) ?? new RowJoiner();
    this.#joiners.set(place, joiner);
    return joiner;
  }
}
