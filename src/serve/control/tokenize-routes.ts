/** `POST /tokenize` and `/detokenize`: vLLM's, which SGLang has too. */

import { badField } from '../body/body-fields.ts';
import { promptOfMessages } from '../body/chat-template.ts';
import { encodeText } from '../body/prompt-text.ts';
import type { ControlRoute } from './control-route.ts';

export const tokenizeRoutes: readonly ControlRoute[] = [
  {
    methods: ['POST'],
    paths: ['/tokenize', '/v1/tokenize'],
    handle: ({ fields }, { limits, tokenizer }) => {
      const prompt = fields.raw('prompt') ?? fields.raw('text');
      if ((prompt === undefined) === (fields.raw('messages') === undefined)) {
        throw badField('prompt', prompt, 'either prompt or messages, and not both');
      }
      if (prompt !== undefined && typeof prompt !== 'string') throw badField('prompt', prompt, 'a string');
      const tokens =
        prompt === undefined
          ? promptOfMessages(fields, limits, tokenizer)
          : encodeText('prompt', prompt, limits, tokenizer);
      return { count: tokens.length, max_model_len: limits.maxModelLen, tokens: Array.from(tokens) };
    },
  },
  {
    methods: ['POST'],
    paths: ['/detokenize', '/v1/detokenize'],
    handle: ({ fields }, { limits, tokenizer }) => {
      const tokens = fields.tokenIds('tokens', limits.vocabSize, limits.maxModelLen);
      if (tokens === null) throw badField('tokens', undefined, 'a list of token ids');
      const text = tokenizer.decode(tokens);
      return { prompt: text, text };
    },
  },
];
