/**
 * miles' session server: an agent's chat whose prompt is given as ids, answered with the `meta_info` of SGLang's native
 * API in the choice.
 */

import type { BodyFields } from '../../body/body-fields.ts';
import { badField, readTokenIds } from '../../body/body-fields.ts';
import { refuseForeign, vllmsFields } from '../../body/foreign-fields.ts';
import type { JobLimits } from '../../body/generation-job.ts';
import { readSglangRowFields } from '../../body/row-fields.ts';
import type { ByteTokenizer } from '../../body/tokenizer.ts';
import type { Asked } from '../answer-form.ts';
import { chatForm, readChatJob, tokenText } from '../openai/chat.ts';
import { sglangStartField } from '../sglang/generate.ts';
import { metaInfo } from '../sglang/meta-info.ts';

/** Of OpenAI's chat, and so of this one. */
const shared = new Set(['max_tokens', 'logprobs']);
const foreign = vllmsFields.filter(([name]) => !shared.has(name));

export function readMilesChat(
  fields: BodyFields,
  headerId: string | null,
  limits: JobLimits,
  tokenizer: ByteTokenizer,
): Asked {
  refuseForeign(fields, foreign);
  if (!fields.flag('return_meta_info')) {
    throw badField('return_meta_info', fields.raw('return_meta_info'), 'true with input_ids, or send messages alone');
  }
  // What the prompt was made from.
  for (const name of ['messages', 'tools', 'tool_choice', 'parallel_tool_calls']) fields.raw(name);
  const job = readChatJob(fields, headerId, limits, {
    rows: () => readSglangRowFields(fields, limits),
    prompt: () => readInputIds(fields, limits),
    startField: sglangStartField,
  });
  if (job.stream) throw badField('stream', true, 'false with return_meta_info');
  const form = chatForm(tokenText(fields, tokenizer), {
    ofChoice: (view, head) => ({ meta_info: metaInfo(view, head) }),
  });
  return { job, form };
}

function readInputIds(fields: BodyFields, { vocabSize, maxModelLen }: JobLimits): Uint32Array {
  const value = fields.raw('input_ids');
  const ids = readTokenIds('input_ids', value, vocabSize, maxModelLen);
  if (ids.length === 0) throw badField('input_ids', value, 'a non-empty list of token ids');
  return ids;
}
