/** A recording of what a real model did, and where routing comes from. */

/** One request of a recording, served from its first to its last token. */
export type RecordedRequest = Readonly<{
  requestId: string;
  promptTokenIds: Uint32Array;
  outputTokenIds: Uint32Array;
  /** `[promptLen + outputLen − 1, L, K]` expert ids (L1): the last output token was never an input. */
  rows: Uint8Array | Uint16Array;
}>;

/** Structured-cloneable. */
export type RecordedRouting = Readonly<{
  /** For messages and headlines. */
  name: string;
  numLayers: number;
  numExperts: number;
  topK: number;
  requests: readonly RecordedRequest[];
}>;

/**
 * Where rows and tokens come from. `deterministic`: the router, and they are a function of the token prefix.
 * `nondeterministic`: the router, and each forward pass folds its epoch (step id + 1, or the one given) into the keys
 * it writes, so that a row tells whose pass it is of. `replay`: a recording.
 */
export type Routing =
  | Readonly<{ kind: 'deterministic' }>
  | Readonly<{ kind: 'nondeterministic'; epoch?: number }>
  | Readonly<{ kind: 'replay'; recording: RecordedRouting }>;
