/**
 * `chat`: conversations of one to three turns that open with one of a few system prompts.
 *
 *     turn 1   [system][user 1]                       shared with everyone under this system prompt: [system]
 *     turn 2   [system][user 1][answer 1][user 2]     shared with turn 1: [system][user 1]
 *
 * A turn follows the one before it in the order of requests, but does not wait for it: what the model will answer is
 * not known here, so the history holds a stand-in of the answer's length.
 */

import { generatorShape } from './generator.ts';
import type { GeneratorOptions, GeneratorShape } from './generator.ts';
import { lengthAround, wholeLength } from './lengths.ts';
import { random } from './random.ts';
import { concatenate, text } from './tokens.ts';
import type { Workload, WorkloadRequest } from './workload.ts';

const DEFAULT_REQUESTS = 28;
const NUM_SYSTEM_PROMPTS = 3;
const SYSTEM_TOKENS = 32;
const USER_TOKENS_MEDIAN = 24;
const ANSWER_TOKENS_MEDIAN = 24;
/** Lengths lie within a factor of 2^2 around their median. */
const LENGTH_DOUBLINGS = 2;
const MAX_TURNS = 3;
/** Milliseconds between two arrivals, drawn like a length. */
const ARRIVAL_GAP_MS_MEDIAN = 20;
const LONGEST_PROMPT =
  SYSTEM_TOKENS + 2 ** LENGTH_DOUBLINGS * (MAX_TURNS * USER_TOKENS_MEDIAN + (MAX_TURNS - 1) * ANSWER_TOKENS_MEDIAN);

type Conversation = { history: Uint32Array; numTurns: number };

function systemPrompts({ seed, vocabSize, lengthScale }: GeneratorShape): Uint32Array[] {
  const length = wholeLength(SYSTEM_TOKENS * lengthScale);
  return Array.from({ length: NUM_SYSTEM_PROMPTS }, (_, number) =>
    text(length, { id: number, random: random(seed, `chat/system/${number}`), vocabSize }),
  );
}

/**
 * 28 requests by default, about 4,000 tokens, of which a prefix cache saves almost half.
 *
 * @throws BAD_VALUE for an option out of range
 */
export function chat(options: GeneratorOptions): Workload {
  const shape = generatorShape(options, DEFAULT_REQUESTS, LONGEST_PROMPT);
  const { seed, vocabSize, numRequests, lengthScale } = shape;
  const systems = systemPrompts(shape);
  const turns = random(seed, 'chat/turns');
  const lengths = random(seed, 'chat/lengths');
  const gaps = random(seed, 'chat/arrivals');
  const drawLength = (median: number) => lengthAround(lengths, median * lengthScale, LENGTH_DOUBLINGS);
  // Conversations that may have another turn.
  const open: Conversation[] = [];
  const requests: WorkloadRequest[] = [];
  let arrivalMs = 0;

  for (let number = 0; number < numRequests; number++) {
    if (open.length === 0 || turns.below(2) === 0) {
      open.push({ history: systems[turns.below(NUM_SYSTEM_PROMPTS)]!, numTurns: 0 });
    }
    const place = turns.below(open.length);
    const conversation = open[place]!;
    const user = text(drawLength(USER_TOKENS_MEDIAN), {
      id: number,
      random: random(seed, `chat/user/${number}`),
      vocabSize,
    });
    const prompt = concatenate([conversation.history, user]);
    const maxTokens = drawLength(ANSWER_TOKENS_MEDIAN);
    requests.push({
      requestId: `chat-${number}`,
      promptTokenIds: prompt,
      maxTokens,
      priority: 0,
      arrivalMs,
      cacheSalt: null,
    });
    arrivalMs += lengthAround(gaps, ARRIVAL_GAP_MS_MEDIAN, LENGTH_DOUBLINGS);
    conversation.numTurns++;
    if (conversation.numTurns === MAX_TURNS) {
      open.splice(place, 1);
      continue;
    }
    conversation.history = concatenate([
      prompt,
      text(maxTokens, { id: number, random: random(seed, `chat/answer/${number}`), vocabSize }),
    ]);
  }
  return { name: 'chat', requests, minConcurrency: 1 };
}
