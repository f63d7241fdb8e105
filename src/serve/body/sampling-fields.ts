/** The fields that all three request bodies share: sampling, routed experts, streaming, identity. */

import { randomUUID } from 'node:crypto';
import type { SamplingParams } from '../../contract/request.ts';
import type { BodyFields } from './body-fields.ts';
import { badField, show } from './body-fields.ts';
import type { GenerationJob, JobLimits } from './generation-job.ts';
import { HttpError } from '../http-error.ts';
import type { TransferParams } from '../kv/transfer-params.ts';
import { readTransferParams } from '../kv/transfer-params.ts';
import type { RowFields } from './row-fields.ts';

const MAX_STOP_TOKENS = 1024;
const MAX_NAME_LENGTH = 256;

/** Fields that are checked and have no effect: the next token is a function of the earlier ones, nothing is drawn. */
const withoutEffect: readonly (readonly [name: string, min: number, max: number])[] = [
  ['temperature', 0, 100],
  ['top_p', 0, 1],
  ['top_k', -1, 2 ** 31],
  ['min_p', 0, 1],
  ['presence_penalty', -2, 2],
  ['frequency_penalty', -2, 2],
  ['repetition_penalty', 0, 100],
  ['seed', Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
  ['sampling_seed', Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
];

const isFalsy = (value: unknown): boolean => value === false || value === 0;
const isEmpty = (value: unknown): boolean => value === '' || (Array.isArray(value) && value.length === 0);
const isEmptyObject = (value: unknown): boolean =>
  typeof value === 'object' && value !== null && !Array.isArray(value) && Object.keys(value).length === 0;
/** Known, and without a meaning here: not worth a line in the log. */
const passedOver: readonly string[] = [
  'skip_special_tokens',
  'spaces_between_special_tokens',
  'include_stop_str_in_output',
  'no_stop_trim',
  'custom_params',
  'return_indexer_topk',
  'routed_dp_rank',
  'disagg_prefill_dp_rank',
  'lora_path',
  'output_kind',
  'detokenize',
];

const isTextFormat = (value: unknown): boolean => (value as { type?: unknown }).type === 'text';
const never = (): boolean => false;

/** Fields that would change the answer and are not supported: they are refused unless they have no effect. */
const unsupported: readonly (readonly [name: string, isNeutral: (value: unknown) => boolean, instead: string])[] = [
  ['stop', isEmpty, 'use stop_token_ids'],
  ['echo', isFalsy, 'use return_token_ids'],
  ['suffix', isEmpty, 'leave it out'],
  ['logit_bias', isEmptyObject, 'leave it out'],
  ['functions', isEmpty, 'leave it out'],
  ['response_format', isTextFormat, 'leave it out'],
  ['structured_outputs', never, 'leave it out'],
  ['prompt_embeds', never, 'send text or token ids'],
  ['features', isEmptyObject, 'send text or token ids'],
  ['image_data', isEmpty, 'send text or token ids'],
  ['use_beam_search', isFalsy, 'leave it out'],
];

export function refuseUnsupported(fields: BodyFields): void {
  for (const [name, isNeutral, instead] of unsupported) {
    const value = fields.raw(name);
    if (value === undefined || isNeutral(value)) continue;
    throw HttpError.of('UNSUPPORTED_FIELD', fields.nameOf(name), fields.nameOf(name), show(value), instead);
  }
}

/** Sampling parameters without the maximum of tokens, and the number of choices of each prompt. */
export type SamplingFields = Readonly<{ n: number; sampling: Omit<SamplingParams, 'maxTokens'> }>;

/**
 * `fields` is the body itself, or `sampling_params` of `/inference/v1/generate`; `rows` says what is wanted of routed
 * experts.
 */
export function readSampling(fields: BodyFields, rows: RowFields, limits: JobLimits): SamplingFields {
  if (rows.wanted !== null && !limits.hasRows) {
    const name = 'return_routed_experts';
    const instead = 'this server captures no rows (--design off): leave it out, or ask another server';
    throw HttpError.of('UNSUPPORTED_FIELD', name, name, 'true', instead);
  }
  for (const [name, min, max] of withoutEffect) fields.finite(name, min, max);
  for (const name of passedOver) fields.raw(name);
  const n = fields.whole('n', 1, limits.maxChoices) ?? 1;
  const bestOf = fields.whole('best_of', 1, limits.maxChoices) ?? n;
  if (bestOf !== n) {
    throw HttpError.of('UNSUPPORTED_FIELD', 'best_of', fields.nameOf('best_of'), String(bestOf), `use n = ${bestOf}`);
  }
  const stopTokenIds = fields.tokenIds('stop_token_ids', limits.vocabSize, MAX_STOP_TOKENS) ?? [];
  return {
    n,
    sampling: {
      minTokens: fields.whole('min_tokens', 0, limits.maxModelLen) ?? 0,
      eosTokenId: fields.flag('ignore_eos') ? null : limits.eosTokenId,
      stopTokenIds: Array.from(stopTokenIds),
      returnRoutedExperts: rows.wanted !== null,
      routedExpertsPromptStart: rows.promptStart,
    },
  };
}

export function withMaxTokens(
  fields: BodyFields,
  { sampling }: Pick<SamplingFields, 'sampling'>,
  maxTokens: number,
): SamplingParams {
  if (sampling.minTokens <= maxTokens) return { ...sampling, maxTokens };
  throw badField(fields.nameOf('min_tokens'), sampling.minTokens, `at most max_tokens (${maxTokens})`);
}

type Identity = Pick<
  GenerationJob,
  'requestId' | 'priority' | 'cacheSalt' | 'stream' | 'includeUsage' | 'returnTokenIds' | 'transfer'
>;

/** `headerId`: of the header `X-Request-Id`, which vLLM's proxies set. */
export function readIdentity(
  fields: BodyFields,
  params: BodyFields,
  headerId: string | null,
  limits: JobLimits,
): Identity {
  const model = fields.text('model', MAX_NAME_LENGTH) ?? limits.servedModel;
  if (model !== limits.servedModel) throw HttpError.of('UNKNOWN_MODEL', 'model', model, limits.servedModel);
  const requestId =
    fields.text('request_id', MAX_NAME_LENGTH) ?? fields.text('rid', MAX_NAME_LENGTH) ?? headerId ?? randomUUID();
  if (!/^[\x21-\x7e]{1,256}$/.test(requestId)) {
    throw badField('request_id', requestId, '1 to 256 printable ASCII characters without spaces');
  }
  const priority = fields.whole('priority', Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER) ?? 0;
  if (priority !== 0 && !limits.hasPriorities) {
    throw badField('priority', priority, '0, or start the server with --policy priority');
  }
  const stream = fields.flag('stream');
  const streamOptions = fields.object('stream_options');
  const includeUsage = streamOptions.flag('include_usage');
  return {
    requestId,
    priority,
    cacheSalt: readCacheSalt(fields, params),
    stream,
    includeUsage: stream && includeUsage,
    returnTokenIds: fields.flag('return_token_ids'),
    transfer: readTransfer(fields, limits),
  };
}

/** In the body, or, as one client has it, in the sampling parameters. */
function readCacheSalt(fields: BodyFields, params: BodyFields): string | null {
  const inBody = fields.text('cache_salt', MAX_NAME_LENGTH);
  const inParams = params.text('cache_salt', MAX_NAME_LENGTH);
  if (inBody !== null && inParams !== null && inBody !== inParams) {
    throw badField(params.nameOf('cache_salt'), inParams, `${show(inBody)}, as in the body, or leave one out`);
  }
  return inBody ?? inParams;
}

function readTransfer(fields: BodyFields, { transfer }: JobLimits): TransferParams | null {
  const name = 'kv_transfer_params';
  const value = fields.raw(name);
  if (value === undefined) return null;
  if (transfer === null) {
    throw HttpError.of('UNSUPPORTED_FIELD', name, name, show(value), 'start the server with --role');
  }
  return readTransferParams(fields, transfer);
}

/**
 * KV is that of one prompt, what it is answered to is not a stream, and rows that come along must be those that are
 * wanted.
 */
export function checkTransfer({ transfer, prompts, stream, sampling }: GenerationJob): void {
  if (transfer === null) return;
  if (prompts.length > 1) throw badField('prompt', prompts, 'one prompt with kv_transfer_params');
  if (transfer.kind === 'keep') {
    if (stream) throw badField('stream', stream, 'false where KV is to be kept');
    return;
  }
  const { carried } = transfer;
  const wantedFrom = sampling.routedExpertsPromptStart;
  if (carried === null || !sampling.returnRoutedExperts || carried.start <= wantedFrom) return;
  const name = 'kv_transfer_params.remote_routed_experts.start';
  throw badField(name, carried.start, `at most routed_experts_prompt_start (${wantedFrom})`);
}
