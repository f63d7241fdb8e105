/** The body of `POST /v1/chat/completions`. */

import type { BodyFields } from './body-fields.ts';
import { isObject } from '../../rows/json-object.ts';
import { badField } from './body-fields.ts';
import type { GenerationJob, JobLimits } from './generation-job.ts';
import { encodeText } from './prompt-text.ts';
import { readJob } from './read-job.ts';
import { readRowFields } from './sampling-fields.ts';
import type { ByteTokenizer } from './tokenizer.ts';

/**
 * No model here knows when an answer is complete, and the rest of the context, which is vLLM's default, can be long.
 */
const DEFAULT_MAX_TOKENS = 256;
const MAX_MESSAGES = 10_000;
const roles = ['system', 'developer', 'user', 'assistant', 'tool'];

/** Throws HttpError for the first field that is wrong. */
export function readChatBody(
  fields: BodyFields,
  headerId: string | null,
  limits: JobLimits,
  tokenizer: ByteTokenizer,
): GenerationJob {
  return readJob(fields, headerId, limits, {
    params: fields,
    rows: () => readRowFields(fields, 'vllm_xargs'),
    maxTokens: () => {
      const older = fields.whole('max_tokens', 1, Number.MAX_SAFE_INTEGER);
      return fields.whole('max_completion_tokens', 1, Number.MAX_SAFE_INTEGER) ?? older ?? DEFAULT_MAX_TOKENS;
    },
    prompts: () => [encodeText('messages', renderMessages(fields.raw('messages')), limits, tokenizer)],
  });
}

/** The chat template: a line a message, `role: content`, and the beginning of the assistant's. */
function renderMessages(messages: unknown): string {
  if (!Array.isArray(messages) || messages.length === 0 || messages.length > MAX_MESSAGES) {
    throw badField('messages', messages, `a list of 1 to ${MAX_MESSAGES} messages`);
  }
  const lines = messages.map((message: unknown, i) => {
    const name = `messages[${i}]`;
    if (!isObject(message)) throw badField(name, message, 'an object with role and content');
    const { role } = message;
    if (typeof role !== 'string' || !roles.includes(role)) {
      throw badField(`${name}.role`, role, `one of: ${roles.join(', ')}`);
    }
    return `${role}: ${readContent(`${name}.content`, message['content'])}\n`;
  });
  return `${lines.join('')}assistant: `;
}

/** A string, or a list of text parts. */
function readContent(name: string, content: unknown): string {
  const parts: readonly unknown[] = Array.isArray(content) ? content : [{ type: 'text', text: content }];
  return parts
    .map((part, i) => {
      const where = Array.isArray(content) ? `${name}[${i}]` : name;
      const text = isObject(part) && part['type'] === 'text' ? part['text'] : undefined;
      if (typeof text !== 'string')
        throw badField(where, isObject(part) && !Array.isArray(content) ? content : part, 'text');
      return text;
    })
    .join('');
}
