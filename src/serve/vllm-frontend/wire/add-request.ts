/** A request of vLLM's frontend: its fields by name, and what the engine is to do. */

import type { EngineRequest } from '../../../contract/request.ts';
import { isObject } from '../../../rows/json-object.ts';
import { BodyFields, readTokenIds } from '../../body/body-fields.ts';
import type { TransferParams, TransferRules } from '../../kv/transfer-params.ts';
import { readTransferParams } from '../../kv/transfer-params.ts';
import { readSamplingMap, type SamplingRules } from './sampling-map.ts';
import { LAYOUT, requestFields, versionOf, type RequestField } from './vllm-layout.ts';

export type AddRules = SamplingRules &
  Readonly<{
    /** How many API servers there are. */
    numClients: number;
    /** `null`: KV is neither kept for other engines nor fetched from them. */
    transfer: TransferRules | null;
  }>;

export type AddRequest = Readonly<{
  request: EngineRequest;
  /** The API server to which the outputs go. */
  clientIndex: number;
  /** Of data-parallel engines. */
  wave: number;
  /** It ends as soon as it has begun: KV that is kept for it elsewhere can go. */
  abortsImmediately: boolean;
  transfer: TransferParams | null;
  logprobs: number | null;
  promptLogprobs: number | null;
  /** What was given and has no effect. */
  ignored: readonly string[];
}>;

/** Fields for which there is nothing here. */
const UNSUPPORTED: readonly (readonly [name: RequestField, what: string])[] = [
  ['pooling_params', 'pooling: this engine generates only'],
  ['mm_features', 'multimodal input: this engine takes token ids only'],
  ['prompt_embeds', 'prompt embeddings: this engine takes token ids only'],
  ['lora_request', 'a LoRA adapter: this engine has none'],
];

/** Throws an Error that says what is wrong with the request. */
export function readAddRequest(items: readonly unknown[], rules: AddRules): AddRequest {
  if (items.length !== LAYOUT.request.length) {
    throw new Error(
      `its frontend is vLLM ${versionOf(items.length)}, since a request has ${items.length} fields; ` +
        `this engine speaks vLLM ${LAYOUT.version}`,
    );
  }
  const fields = requestFields(items);
  for (const [name, what] of UNSUPPORTED) {
    if (isGiven(fields[name])) throw new Error(`it asks for ${what}`);
  }
  // A streaming session would go on after its end.
  if (fields.resumable === true) throw new Error('it asks for a resumable session: this engine has none');
  const plain = new BodyFields(fields);
  const { vocabSize, maxModelLen, numClients } = rules;
  const promptTokenIds = readTokenIds('prompt_token_ids', fields.prompt_token_ids, vocabSize, maxModelLen);
  const map = fields.sampling_params;
  if (!isObject(map)) throw new Error('it has no sampling_params');
  const params = new BodyFields(map, 'sampling_params.');
  const { sampling, logprobs, promptLogprobs, skipsPrefixCache, ignored } = readSamplingMap(
    params,
    promptTokenIds.length,
    rules,
  );
  const requestId = fields.request_id;
  if (typeof requestId !== 'string') throw new Error('its request_id is no text');
  const cacheSalt = plain.raw('cache_salt') === '' ? null : plain.text('cache_salt', 2 ** 20);
  const extra = params.object('extra_args');
  const hasTransfer = extra.raw('kv_transfer_params') !== undefined;
  return {
    request: {
      requestId,
      promptTokenIds,
      sampling,
      priority: plain.whole('priority', Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER) ?? 0,
      arrivalTime: plain.finite('arrival_time', 0, Number.MAX_VALUE) ?? 0,
      // With a salt of its own a request finds no cached block.
      cacheSalt: skipsPrefixCache ? `${cacheSalt ?? ''}\0${requestId}` : cacheSalt,
    },
    clientIndex: plain.whole('client_index', 0, numClients - 1) ?? 0,
    wave: plain.whole('current_wave', 0, Number.MAX_SAFE_INTEGER) ?? 0,
    abortsImmediately: plain.flag('abort_immediately'),
    transfer: rules.transfer === null ? null : readTransferParams(extra, rules.transfer),
    logprobs,
    promptLogprobs,
    ignored: hasTransfer && rules.transfer === null ? [...ignored, 'kv_transfer_params'] : ignored,
  };
}

function isGiven(value: unknown): boolean {
  return value !== null && value !== undefined && !(Array.isArray(value) && value.length === 0);
}
