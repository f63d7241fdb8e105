/** What a client asks for: the bodies of all three endpoints are read into this. */

import type { SamplingParams } from '../../contract/request.ts';
import type { TransferParams, TransferRules } from '../kv/transfer-params.ts';
import type { RowFormat } from '../../rows/row-formats.ts';

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
  /** KV to begin with, or to keep; `null`: neither. */
  transfer: TransferParams | null;
  /** `null`: no rows. */
  rowFormat: RowFormat | null;
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
  /** What `kv_transfer_params` may ask for; `null`: this server shares no KV. */
  transfer: TransferRules | null;
  /** The most prompts times n. */
  maxChoices: number;
}>;
