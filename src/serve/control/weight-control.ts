/** Weights that change while a server runs, as its control endpoints see them: trainers pause, update, resume. */

/**
 * What becomes of the requests that run when the engine is paused: they end at once with what they have, they run to
 * their end, or they stand still and go on with the KV they have (`keep`) or without it (`retract`). New ones wait.
 */
export type PauseMode = 'abort' | 'wait' | 'keep' | 'retract';

export type WeightUpdate = Readonly<{
  /** The name of the new weights; `null`: as it is. */
  version: string | null;
  /** Cached prefixes are forgotten: they were computed with the weights of before. */
  clearsCache: boolean;
  /** Requests that run end first, instead of being a reason to refuse. */
  abortsRequests: boolean;
}>;

export interface WeightControl {
  /** The name of the weights; `default` until an update names them. */
  readonly version: string;
  /** Folded into the keys that are computed from here on, and so into tokens, rows and log-probabilities. */
  readonly epoch: number;
  readonly isPaused: boolean;

  /**
   * Returns when a request may go to the engine: at once, or after `resume`; `false` if `signal` comes first. Rejects
   * with DRAINING once the server is being closed.
   */
  mayRun(signal: AbortSignal): Promise<boolean>;

  /** Resolves when the mode is fulfilled. Rejects with PAUSE_UNSUPPORTED; nothing has changed then. */
  pause(options: Readonly<{ mode: PauseMode; clearsCache: boolean }>): Promise<void>;

  /** Without a pause nothing happens. */
  resume(): void;

  /** Throws WEIGHTS_IN_USE, VERSION_BACKWARDS; nothing has changed then. */
  update(update: WeightUpdate): void;

  /** Names the weights that there are anew. Throws VERSION_BACKWARDS. */
  rename(version: string): void;

  /** Requests that wait are refused. */
  close(): void;
}
