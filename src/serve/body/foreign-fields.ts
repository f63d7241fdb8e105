/** Fields of one dialect in a request of another: passed over, they would be missed in silence. */

import { HttpError } from '../http-error.ts';
import { show, type BodyFields } from './body-fields.ts';

/** The field, and what stands for it here. */
export type ForeignFields = readonly (readonly [name: string, instead: string])[];

/** Of SGLang's native API, in a body of OpenAI's or vLLM's. */
export const sglangsFields: ForeignFields = [
  ['return_routed_experts', 'send vllm_xargs.return_routed_experts'],
  ['routed_experts_start_len', 'send routed_experts_prompt_start'],
  ['return_logprob', 'send logprobs'],
  ['max_new_tokens', 'send max_tokens'],
];

/** Of vLLM's API, in a body of SGLang's. */
export const vllmsFields: ForeignFields = [
  ['vllm_xargs', 'send return_routed_experts'],
  ['routed_experts_prompt_start', 'send routed_experts_start_len'],
  ['token_ids', 'send input_ids'],
  ['prompt', 'send text or input_ids'],
  ['max_tokens', 'send max_new_tokens in sampling_params'],
  ['logprobs', 'send return_logprob'],
];

/** Throws UNSUPPORTED_FIELD for the first that asks for something. */
export function refuseForeign(fields: BodyFields, foreign: ForeignFields): void {
  for (const [name, instead] of foreign) {
    const value = fields.peek(name);
    if (value === undefined || value === false) continue;
    throw HttpError.of('UNSUPPORTED_FIELD', fields.nameOf(name), fields.nameOf(name), show(value), instead);
  }
}
