/**
 * Which dialect a request is of, by its path, and where several share one by what their clients send; `--dialect`
 * decides where nothing tells.
 *
 *     /v1/completions           OpenAI with vLLM's fields
 *     /v1/chat/completions      return_meta_info or input_ids: miles; return_tokens_as_token_ids, logprobs and
 *                               top_logprobs 0: NeMo; logprobs and return_token_ids: verifiers; else as above
 *     /inference/v1/generate    header X-Session-ID: verifiers (SkyRL sends it too, and reads no rows); else vLLM
 *     /skyrl/v1/generate        SkyRL
 *     /generate                 SGLang
 */

import type { BodyFields } from '../body/body-fields.ts';
import type { JobLimits } from '../body/generation-job.ts';
import type { ByteTokenizer } from '../body/tokenizer.ts';
import type { Asked } from './answer-form.ts';
import { readMilesChat } from './miles/chat.ts';
import { readNemoChat } from './nemo/chat.ts';
import { readChat } from './openai/chat.ts';
import { readCompletion } from './openai/completions.ts';
import { readSglang } from './sglang/generate.ts';
import { skyrlWithoutRows, skyrlWithRows } from './skyrl/generate.ts';
import { verifiersRows, verifiersTokens } from './verifiers/usual-rows.ts';
import { plainTokens, readTokens, type TokensClient } from './vllm/generate.ts';

/** `auto`: what the request tells. Each other name: that of the clients whose requests tell nothing. */
export const dialectNames = ['auto', 'vllm', 'prime-rl', 'skyrl'] as const;

export type DialectName = (typeof dialectNames)[number];

/** A request beside its body. */
export type RequestFacts = Readonly<{ headerId: string | null; hasSession: boolean }>;

export type BodyReader = (fields: BodyFields, facts: RequestFacts) => Asked;

type Surroundings = Readonly<{ limits: JobLimits; tokenizer: ByteTokenizer; dialect: DialectName }>;

/** The reader of each path that generates. */
export function bodyReaders({ limits, tokenizer, dialect }: Surroundings): Readonly<Record<string, BodyReader>> {
  return {
    '/v1/completions': (fields, { headerId }) => readCompletion(fields, headerId, limits, tokenizer),
    '/v1/chat/completions': (fields, { headerId }) => chatReader(fields, dialect)(fields, headerId, limits, tokenizer),
    '/inference/v1/generate': (fields, { headerId, hasSession }) =>
      readTokens(fields, headerId, limits, tokensClient(dialect, hasSession)),
    '/skyrl/v1/generate': (fields, { headerId }) => readTokens(fields, headerId, limits, skyrlWithRows),
    '/generate': (fields, { headerId }) => readSglang(fields, headerId, limits, tokenizer),
  };
}

type ChatReader = (fields: BodyFields, headerId: string | null, limits: JobLimits, tokenizer: ByteTokenizer) => Asked;

const readVerifiersChat: ChatReader = (fields, headerId, limits, tokenizer) =>
  readChat(fields, headerId, limits, tokenizer, verifiersRows);

function chatReader(fields: BodyFields, dialect: DialectName): ChatReader {
  const has = (name: string, value: unknown): boolean => fields.peek(name) === value;
  if (has('return_meta_info', true) || fields.peek('input_ids') !== undefined) return readMilesChat;
  if (dialect === 'vllm' || !has('logprobs', true)) return readChat;
  if (has('return_tokens_as_token_ids', true) && has('top_logprobs', 0)) return readNemoChat;
  return has('return_token_ids', true) ? readVerifiersChat : readChat;
}

function tokensClient(dialect: DialectName, hasSession: boolean): TokensClient {
  const clients = {
    auto: hasSession ? verifiersTokens : plainTokens,
    vllm: plainTokens,
    'prime-rl': verifiersTokens,
    skyrl: skyrlWithoutRows,
  } satisfies Record<DialectName, TokensClient>;
  return clients[dialect];
}
