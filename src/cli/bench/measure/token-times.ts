/** When the tokens of requests came, as a client of the engine sees it. Knows no clock. */

export type TokenWaits = Readonly<{
  /** Of each request that got a token: from its arrival at the engine to the first output with tokens, ms. */
  ttftMs: readonly number[];
  /** From an output with tokens to the next one of the same request, ms. An accepted draft comes with its step's. */
  itlMs: readonly number[];
}>;

/** Requests are known by their places, `[0, numRequests)`. Moments are in ms. */
export class TokenTimes implements TokenWaits {
  readonly ttftMs: number[] = [];
  readonly itlMs: number[] = [];
  readonly #latestAt: Float64Array;
  readonly #hasTokens: Uint8Array;

  constructor(numRequests: number) {
    this.#latestAt = new Float64Array(numRequests);
    this.#hasTokens = new Uint8Array(numRequests);
  }

  added(place: number, at: number): void {
    this.#latestAt[place] = at;
  }

  /** An output brought tokens, at least one. */
  tokensCame(place: number, at: number): void {
    const waits = this.#hasTokens[place] === 1 ? this.itlMs : this.ttftMs;
    waits.push(at - this.#latestAt[place]!);
    this.#latestAt[place] = at;
    this.#hasTokens[place] = 1;
  }
}
