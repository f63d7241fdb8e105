/** What a client asks for: the bodies of all endpoints are read into this. */

import type { SamplingParams } from '../../contract/request.ts';
import type { TransferParams, TransferRules } from '../kv/transfer-params.ts';
import type { RowFormat } from '../../rows/row-formats.ts';

/**
 * What becomes of rows that are missing. `said`: the form marks them, and `routed_experts_missing` names them.
 * `refused`: the form's readers know no mark, so that the answer is an error; of an aborted request it has no rows.
 * `said-unless-aborted`: marked, but an aborted request has no rows.
 */
export type MissingRowsRule = 'said' | 'refused' | 'said-unless-aborted';

/** How rows come back. */
export type RowsWanted = Readonly<{
  format: RowFormat;
  missing: MissingRowsRule;
  /** The client named the form. */
  isNamed: boolean;
  /** `packed` only: blocks are compressed. */
  isCompressed: boolean;
  /** `packed` only: rows that the client has. */
  known: KnownRows | null;
}>;

/** Rows before `end`, and the CRC-32 of their ids (bytes, or u16 where there are more than 256 experts). */
export type KnownRows = Readonly<{ end: number; crc32: number }>;

/** `promptFrom`: from this position of the prompt on too, counted from its end if it is negative; `null`: not. */
export type LogprobsWanted = Readonly<{ numTop: number; promptFrom: number | null }>;

export type GenerationJob = Readonly<{
  /** The client's id, or a random one; ids of the engine's requests begin with it. */
  requestId: string;
  prompts: readonly Uint32Array[];
  /** Choices per prompt. Choice `i` of prompt `p` has index `p · n + i`. */
  n: number;
  sampling: SamplingParams;
  priority: number;
  cacheSalt: string | null;
  stream: boolean;
  /** A last chunk of the stream has the usage. */
  includeUsage: boolean;
  /** Whether the answer has the token ids of the prompt and of each choice. */
  returnTokenIds: boolean;
  /** `null`: no log-probabilities. */
  logprobs: LogprobsWanted | null;
  /** KV to begin with, or to keep; `null`: neither. */
  transfer: TransferParams | null;
  /** `null`: no rows. */
  rows: RowsWanted | null;
  /** Fields that were sent and have no meaning here; they are logged. */
  ignoredFields: readonly string[];
}>;

/** The limits that a body is checked against. */
export type JobLimits = Readonly<{
  servedModel: string;
  vocabSize: number;
  maxModelLen: number;
  eosTokenId: number;
  hasPriorities: boolean;
  /** Whether the server captures rows at all. */
  hasRows: boolean;
  /** Whether every request gets rows that does not say that it wants none. */
  isEveryRowReturned: boolean;
  /** What `kv_transfer_params` may ask for; `null`: this server shares no KV. */
  transfer: TransferRules | null;
  /** The most prompts times n. */
  maxChoices: number;
}>;
