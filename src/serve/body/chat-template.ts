/**
 * The chat template: a line a message, `role: content`, and the beginning of the assistant's; tools in a line ahead.
 * Text → tokens → text is the identity, so that the template is that of every turn.
 */

import { isObject, type JsonObject } from '../../rows/json-object.ts';
import { badField, readTokenIds, type BodyFields } from './body-fields.ts';
import type { JobLimits } from './generation-job.ts';
import { encodeText } from './prompt-text.ts';
import type { ByteTokenizer } from './tokenizer.ts';

const MAX_MESSAGES = 10_000;
const roles = ['system', 'developer', 'user', 'assistant', 'tool'];

/** Text whose tokens are known: those of an earlier turn, as it was sampled. */
type KnownTokens = Readonly<{ end: number; tokens: Uint32Array }>;

/**
 * The prompt of `messages`. An assistant's message may carry the ids of its turn (`prompt_token_ids`,
 * `generation_token_ids`): the prompt then begins with just these, whatever its text would be read as, so that turns
 * join without a gap.
 */
export function promptOfMessages(fields: BodyFields, limits: JobLimits, tokenizer: ByteTokenizer): Uint32Array {
  const messages = fields.raw('messages');
  if (!Array.isArray(messages) || messages.length === 0 || messages.length > MAX_MESSAGES) {
    throw badField('messages', messages, `a list of 1 to ${MAX_MESSAGES} messages`);
  }
  const lines: string[] = [toolsLine(fields)];
  let known: KnownTokens | null = null;
  for (const [i, message] of messages.entries()) {
    const name = `messages[${i}]`;
    if (!isObject(message)) throw badField(name, message, 'an object with role and content');
    const { role } = message;
    if (typeof role !== 'string' || !roles.includes(role)) {
      throw badField(`${name}.role`, role, `one of: ${roles.join(', ')}`);
    }
    lines.push(`${role}: ${readContent(`${name}.content`, message)}\n`);
    if (role === 'assistant') known = knownTokens(name, message, limits, i + 2) ?? known;
  }
  lines.push('assistant: ');
  if (known === null) return encodeText('messages', lines.join(''), limits, tokenizer);
  // The line's end is no token that was sampled.
  const rest = encodeText('messages', `\n${lines.slice(known.end).join('')}`, limits, tokenizer);
  return joined(known.tokens, rest);
}

function knownTokens(name: string, message: JsonObject, limits: JobLimits, end: number): KnownTokens | null {
  const { prompt_token_ids: prompt = null, generation_token_ids: generation = null } = message;
  if (prompt === null && generation === null) return null;
  if (prompt === null || generation === null) {
    throw badField(`${name}.prompt_token_ids`, prompt, 'it and generation_token_ids, both or neither');
  }
  const ids = [prompt, generation].map((value, i) => {
    const where = `${name}.${i === 0 ? 'prompt' : 'generation'}_token_ids`;
    return readTokenIds(where, value, limits.vocabSize, limits.maxModelLen);
  });
  return { end, tokens: joined(ids[0]!, ids[1]!) };
}

function joined(first: Uint32Array, second: Uint32Array): Uint32Array {
  const all = new Uint32Array(first.length + second.length);
  all.set(first);
  all.set(second, first.length);
  return all;
}

/** No model here calls a tool; what it was told of tools is part of its prompt. */
function toolsLine(fields: BodyFields): string {
  const tools = fields.raw('tools') ?? [];
  const choice = fields.raw('tool_choice') ?? 'auto';
  fields.raw('parallel_tool_calls');
  if (!Array.isArray(tools)) throw badField('tools', tools, 'a list');
  if (choice !== 'auto' && choice !== 'none') {
    throw badField('tool_choice', choice, '"auto" or "none": no model here calls a tool');
  }
  return tools.length === 0 ? '' : `tools: ${JSON.stringify(tools)}\n`;
}

/** A string, or a list of text parts; an assistant that called tools may have said nothing. */
function readContent(name: string, message: JsonObject): string {
  const { role, content, tool_calls: calls } = message;
  const called = role === 'assistant' && Array.isArray(calls) && calls.length > 0 ? JSON.stringify(calls) : null;
  if (called !== null && (content === null || content === undefined)) return called;
  const parts: readonly unknown[] = Array.isArray(content) ? content : [{ type: 'text', text: content }];
  const text = parts
    .map((part, i) => {
      const where = Array.isArray(content) ? `${name}[${i}]` : name;
      const said = isObject(part) && part['type'] === 'text' ? part['text'] : undefined;
      if (typeof said !== 'string') {
        throw badField(where, isObject(part) && !Array.isArray(content) ? content : part, 'text');
      }
      return said;
    })
    .join('');
  return text + (called ?? '');
}
