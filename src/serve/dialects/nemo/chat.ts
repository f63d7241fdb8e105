/**
 * NeMo-RL's chat, as NeMo Gym asks it: the message of the answer carries the ids of its turn, their log-probabilities,
 * and its rows, all of which the next turn's messages bring back.
 */

import { longList } from '../../../rows/json-parts.ts';
import type { BodyFields } from '../../body/body-fields.ts';
import type { JobLimits } from '../../body/generation-job.ts';
import type { UsualRows } from '../../body/row-fields.ts';
import type { ByteTokenizer } from '../../body/tokenizer.ts';
import type { Asked } from '../answer-form.ts';
import { chatForm, readChat } from '../openai/chat.ts';
import { asId } from '../openai/openai-logprobs.ts';

const nemoRows: UsualRows = { format: 'nrlre1', missing: 'said' };

export function readNemoChat(
  fields: BodyFields,
  headerId: string | null,
  limits: JobLimits,
  tokenizer: ByteTokenizer,
): Asked {
  const { job } = readChat(fields, headerId, limits, tokenizer, nemoRows);
  return { job, form: nemoForm };
}

const nemoForm = chatForm(asId, {
  ofMessage: ({ choice, tokenIds, logprobs }) => ({
    prompt_token_ids: Array.from(choice.promptTokenIds),
    generation_token_ids: tokenIds,
    generation_log_probs: longList(logprobs ?? [], ({ logprob }) => logprob),
  }),
});
