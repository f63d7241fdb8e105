/** One client's request as two: to the server that prefills, and to the one that decodes (vLLM's NIXL pull flow). */

import { badField, isObject } from '../body-fields.ts';

type Json = Readonly<Record<string, unknown>>;

export type PdPath = '/v1/completions' | '/v1/chat/completions' | '/inference/v1/generate';

/** Of the request and not of its first token. */
const notForPrefill = ['stream_options', 'min_tokens', 'best_of', 'return_token_ids'];

/** Throws BAD_FIELD for a request that says itself where its KV is. */
export function checkClientBody(body: Json): void {
  const name = 'kv_transfer_params';
  const value = body[name] ?? undefined;
  if (value !== undefined) throw badField(name, value, 'no such field: the proxy writes it');
}

/** KV is handed over for one prompt. A request with several is served as a whole by the server that decodes. */
export function canBeSplit({ prompt }: Json): boolean {
  return !Array.isArray(prompt) || prompt.length <= 1 || typeof prompt[0] === 'number';
}

/** One token of one choice, and the KV kept. `wantsRows`: in the answer, and not only handed over. */
export function prefillBody(path: PdPath, body: Json, wantsRows: boolean): Json {
  const params = {
    do_remote_decode: true,
    do_remote_prefill: false,
    remote_engine_id: null,
    remote_block_ids: null,
    remote_host: null,
    remote_port: null,
    return_rows: wantsRows,
  };
  const isGenerate = path === '/inference/v1/generate';
  const sampling = isObject(body['sampling_params']) ? body['sampling_params'] : {};
  const whole = isGenerate ? { ...without(body), sampling_params: firstToken(sampling) } : firstToken(body);
  // A completion of a chat is as long as this says, whatever `max_tokens` does.
  const chat = path === '/v1/chat/completions' ? { max_completion_tokens: 1 } : {};
  return { ...whole, ...chat, stream: false, kv_transfer_params: params };
}

function firstToken(fields: Json): Json {
  return { ...without(fields), max_tokens: 1, n: 1 };
}

function without(fields: Json): Json {
  // A field called __proto__ stays a field.
  return Object.fromEntries(Object.entries(fields).filter(([name]) => !notForPrefill.includes(name)));
}

/** `params`: what the server that prefilled answered; absent if it kept nothing. */
export function decodeBody(body: Json, params: unknown): Json {
  return isObject(params) ? { ...body, kv_transfer_params: params } : body;
}
