/** A request as a caller hands it to the engine core, and the read-only view of it that capture designs get. */

/** How long a request samples, and whether its rows are wanted. */
export type SamplingParams = Readonly<{
  /** The most tokens to sample, ≥ 1. */
  maxTokens: number;
  /** Stop tokens and EOS are not honoured before this many tokens were sampled. */
  minTokens: number;
  /** The model's end-of-sequence token, or `null` to ignore it. */
  eosTokenId: number | null;
  stopTokenIds: readonly number[];
  /** Opt in to routed experts (`vllm_xargs.return_routed_experts`). */
  returnRoutedExperts: boolean;
  /** Rows before this position are not wanted; 0 ≤ start < prompt length. */
  routedExpertsPromptStart: number;
}>;

/** A request as it comes to the engine core. */
export type EngineRequest = Readonly<{
  /** The caller's name for the request; unique among live requests. */
  requestId: string;
  promptTokenIds: Uint32Array;
  sampling: SamplingParams;
  /** For the policy `priority`: the smaller number goes first. */
  priority: number;
  /** Breaks ties of `priority`. In any unit: the engine only compares. */
  arrivalTime: number;
  /** Requests with different salts share no cached block. */
  cacheSalt: string | null;
}>;

/** A live request as a capture design sees it. The engine owns and changes it. */
export interface CaptureRequest {
  /** The u32 by which every message names this request; never reused by one engine. */
  readonly index: number;
  readonly requestId: string;
  readonly numPromptTokens: number;
  /** Prompt and delivered output tokens. */
  readonly numTokens: number;
  readonly numOutputTokens: number;
  /** Tokens whose KV is computed or scheduled to be. */
  readonly numComputedTokens: number;
  /** The block table. Empty while the request is preempted or waiting. */
  readonly blockIds: readonly number[];
  /** How many blocks from the front of the table have a hash, and so can be hit. */
  readonly numCachedBlocks: number;
  /** Hashes of `numHashedBlocks` full blocks, `blockHashWords` u32 each; none without prefix caching. */
  readonly blockHashes: Uint32Array;
  readonly blockHashWords: number;
  readonly numHashedBlocks: number;
  readonly returnRoutedExperts: boolean;
  readonly routedExpertsPromptStart: number;
}
