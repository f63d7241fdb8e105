/** What a client asks for, whichever endpoint it asks: the three request bodies are read into this. */

import type { SamplingParams } from '../../contract/request.ts';
import type { TransferParams, TransferRules } from '../kv/transfer-params.ts';
import type { RowFormat } from '../../rows/row-formats.ts';

export type GenerationJob = Readonly<{
  /** The client's, or a random one; ids of the engine's requests begin with it. */
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
  /** Answer the prompt's and each choice's token ids too. */
  returnTokenIds: boolean;
  /** KV to begin with, or to keep; `null`: neither. */
  transfer: TransferParams | null;
  /** `null`: no rows. */
  rowFormat: RowFormat | null;
  /** Fields that were sent and mean nothing here; they go to the log. */
  ignoredFields: readonly string[];
}>;

/** What a body is read against. */
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
  /** Prompts times n, at most. */
  maxChoices: number;
}>;
