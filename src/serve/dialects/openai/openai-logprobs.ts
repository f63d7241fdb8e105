/** Log-probabilities as OpenAI's two APIs and vLLM write them. */

import type { TokenLogprob } from '../../../kernels/model/logprobs.ts';
import type { JsonObject } from '../../../rows/json-object.ts';
import { longList } from '../../../rows/json-parts.ts';
import type { ShownLogprob } from '../../answer/choice-logprobs.ts';
import type { ByteTokenizer } from '../../body/tokenizer.ts';
import type { ChoiceView } from '../answer-form.ts';

/** How a token is written: as its text, or, which is exact, as `token_id:n`. */
export type TokenText = (token: number) => string;

export const asId: TokenText = (token) => `token_id:${token}`;

export function asText(tokenizer: ByteTokenizer): TokenText {
  return (token) => tokenizer.decode([token]);
}

/** Of completions: lists beside each other. Offsets count characters of the text that is shown. */
export function completionLogprobs(shown: readonly ShownLogprob[] | null, text: TokenText): unknown {
  if (shown === null) return null;
  const texts = shown.map(({ token }) => text(token));
  let offset = 0;
  const offsets = texts.map((token) => (offset += token.length) - token.length);
  return {
    text_offset: offsets,
    token_logprobs: shown.map(({ logprob }) => logprob),
    tokens: texts,
    top_logprobs: longList(shown, (one) => Object.fromEntries(withItself(one).map((t) => [text(t.token), t.logprob]))),
  };
}

/** Of chats, and of vLLM's tokens in, tokens out. */
export function chatLogprobs(shown: readonly ShownLogprob[] | null, text: TokenText): unknown {
  if (shown === null) return null;
  const entry = ({ token, logprob }: Readonly<{ token: number; logprob: number | null }>): object => {
    const written = text(token);
    return { token: written, logprob, bytes: [...Buffer.from(written, 'utf8')] };
  };
  return { content: longList(shown, (one) => ({ ...entry(one), top_logprobs: one.top.map(entry) })) };
}

/** vLLM's, of the prompt: for each token those that were likely there and itself, by their ids; ranks begin at 1. */
export function promptMember({ promptLogprobs: shown }: ChoiceView, tokenizer: ByteTokenizer): JsonObject {
  if (shown === null) return {};
  const list = longList(shown, (one) => {
    if (one.logprob === null) return null;
    const entries = withItself(one).map(({ token, logprob }, i) => {
      const rank = i < one.top.length ? i : one.rank!;
      return [token, { logprob, rank: rank + 1, decoded_token: tokenizer.decode([token]) }] as const;
    });
    return Object.fromEntries(entries);
  });
  return { prompt_logprobs: list };
}

/** The likeliest, and the token itself, if it is none of them. */
function withItself({ token, logprob, rank, top }: ShownLogprob): readonly TokenLogprob[] {
  if (logprob === null || rank === null || rank < top.length) return top;
  return [...top, { token, logprob }];
}
