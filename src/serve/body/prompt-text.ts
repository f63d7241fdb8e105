/** Text into tokens, within limits. */

import { badField, show } from './body-fields.ts';
import type { JobLimits } from './generation-job.ts';
import { HttpError } from '../http-error.ts';
import type { ByteTokenizer } from './tokenizer.ts';

/** The most characters of one token: `<|`, ten digits and `|>`. */
const MOST_CHARACTERS_PER_TOKEN = 14;

/** Throws HttpError for text that is no Unicode, or too long for any prompt, before it is tokenized. */
export function encodeText(name: string, text: string, limits: JobLimits, tokenizer: ByteTokenizer): Uint32Array {
  const mostCharacters = limits.maxModelLen * MOST_CHARACTERS_PER_TOKEN;
  if (text.length > mostCharacters)
    throw badField(name, text, `at most ${limits.maxModelLen} tokens, the context length`);
  if (text.isWellFormed()) return tokenizer.encode(text);
  throw HttpError.of('BAD_FIELD', name, name, `${show(text)} with a lone surrogate`, 'well-formed Unicode');
}
