/** Recorded routing of a real model, and the sources that routing can come from. */

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
 * Where rows and tokens come from. `deterministic`: from the router, as a function of the token prefix.
 * `nondeterministic`: from the router, and each forward pass folds its epoch (step id + 1, or `epoch`) into the keys
 * that it writes, so that a row tells which pass computed it. `replay`: from a recording.
 */
export type Routing =
  | Readonly<{ kind: 'deterministic' }>
  | Readonly<{ kind: 'nondeterministic'; epoch?: number }>
  | Readonly<{ kind: 'replay'; recording: RecordedRouting }>;
