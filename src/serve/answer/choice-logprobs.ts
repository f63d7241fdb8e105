/** The made-up log-probabilities of one choice, as its tokens come. */

import { setImmediate as nextTurn } from 'node:timers/promises';
import { SequenceLogprobs, type TokenLogprob } from '../../kernels/model/logprobs.ts';
import type { LogprobsWanted } from '../body/generation-job.ts';

/** `rank`: 0 is the likeliest; `null` of the first token of all, which nothing comes before. */
export type ShownLogprob = Readonly<{
  token: number;
  logprob: number | null;
  rank: number | null;
  /** The likeliest tokens at this place, the likeliest first. */
  top: readonly TokenLogprob[];
}>;

/** Tokens taken in a turn of the event loop: about 1 ms. */
const TOKENS_PER_TURN = 4096;

export class ChoiceLogprobs {
  readonly #sequence: SequenceLogprobs;
  readonly #wanted: LogprobsWanted;

  constructor(wanted: LogprobsWanted, { vocabSize, epoch }: Readonly<{ vocabSize: number; epoch: number }>) {
    this.#sequence = new SequenceLogprobs(vocabSize, () => epoch);
    this.#wanted = wanted;
  }

  /** Takes the prompt, first of all. Resolves with what is wanted of it, or `null`. */
  async takePrompt(prompt: Uint32Array): Promise<readonly ShownLogprob[] | null> {
    const { promptFrom, numTop } = this.#wanted;
    const from = promptFrom === null ? prompt.length : promptFrom < 0 ? prompt.length + promptFrom : promptFrom;
    const shown: ShownLogprob[] = [];
    for (const [position, token] of prompt.entries()) {
      if (position % TOKENS_PER_TURN === TOKENS_PER_TURN - 1) await nextTurn();
      if (position >= from) shown.push(this.#shown(token, numTop));
      this.#sequence.push(token);
    }
    return promptFrom === null ? null : shown;
  }

  /** Takes the tokens that follow. */
  async take(tokens: readonly number[]): Promise<readonly ShownLogprob[]> {
    const shown: ShownLogprob[] = [];
    for (const [i, token] of tokens.entries()) {
      if (i % TOKENS_PER_TURN === TOKENS_PER_TURN - 1) await nextTurn();
      shown.push(this.#shown(token, this.#wanted.numTop));
      this.#sequence.push(token);
    }
    return shown;
  }

  #shown(token: number, numTop: number): ShownLogprob {
    const next = this.#sequence.next();
    if (next === null) return { token, logprob: null, rank: null, top: [] };
    return { token, logprob: next.of(token), rank: next.rankOf(token), top: next.top(numTop) };
  }
}
