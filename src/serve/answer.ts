/** Writes a generation as an HTTP body, a part at a time: one JSON object, or a stream of server-sent events. */

import { setImmediate as nextTurn } from 'node:timers/promises';
import type { WithLayers } from '../capture/row-layers.ts';
import { countPositions } from '../capture/routed-rows.ts';
import { RoutedExpertsError } from '../contract/errors.ts';
import type { Dialect } from './dialect.ts';
import type { Choice, Generation } from './generation.ts';
import type { GenerationJob } from './body/generation-job.ts';
import { HttpError } from './http-error.ts';
import { carriedParts } from './kv/carried-rows.ts';
import type { TransferAnswer } from './kv/transfer-params.ts';
import type { Metrics } from './metrics.ts';
import type { JsonParts } from '../rows/json-parts.ts';
import { objectWith } from '../rows/json-parts.ts';
import { rowMembers } from '../rows/row-formats.ts';
import type { ByteTokenizer } from './body/tokenizer.ts';
import { TokenDecoder } from './body/tokenizer.ts';

export type AnswerContext = Readonly<{
  dialect: Dialect;
  job: GenerationJob;
  generation: Generation;
  /** Of the answer: the dialect's prefix and the request's id. */
  id: string;
  /** Seconds since 1970. */
  created: number;
  model: string;
  numExperts: number;
  /** Gives rows the axis of layers that the server was started with. */
  withLayers: WithLayers;
  tokenizer: ByteTokenizer;
  metrics: Metrics;
  /** Why an engine that gave up did so. */
  whyDead: () => Promise<string>;
}>;

/**
 * From this many characters on, what was written waits for the next turn of the event loop: rows must not hold up the
 * engine (L6).
 */
const TURN_CHARACTERS = 128 * 1024;

/**
 * The whole answer, for a generation that has finished. Rejects with ENGINE_DEAD, KV_LOAD_FAILED or DESIGN_FAILED if
 * the engine could not finish it.
 */
export async function jsonAnswer(context: AnswerContext): Promise<AsyncGenerator<string>> {
  const { dialect, job, generation, id, created, model } = context;
  const failed = generation.choices.find((choice) => choice.finishReason === 'error');
  if (failed !== undefined) throw await failureOf(context, failed);
  const kvTransfer = generation.choices.find((choice) => choice.kvTransfer !== null)?.kvTransfer;
  const choices = joinParts(
    generation.choices.map((choice) => {
      const text = context.tokenizer.decode(choice.tokenIds);
      return objectWith(dialect.choice(choice, text, job), rowsOf(context, choice));
    }),
  );
  return inTurns(
    objectWith(dialect.answer(id, created, model), [
      ['choices', choices],
      ['usage', [JSON.stringify(usage(generation))]],
      ...(kvTransfer ? [['kv_transfer_params', transferParts(context, kvTransfer)] as const] : []),
    ]),
  );
}

/** Server-sent events from the first token to `[DONE]`; the last event of a choice has its finish reason and rows. */
export async function* streamAnswer(context: AnswerContext): AsyncGenerator<string> {
  const { dialect, job, generation, id, created, model } = context;
  const head = dialect.chunk(id, created, model);
  const noUsage = job.includeUsage ? { usage: null } : {};
  const decoders = generation.choices.map(() => new TokenDecoder(context.tokenizer));
  const started = generation.choices.map(() => false);
  for (let updates = await generation.next(); updates.length > 0; updates = await generation.next()) {
    for (const { choice, newTokenIds, isLast } of updates) {
      if (choice.finishReason === 'error') {
        const { body } = await failureOf(context, choice);
        yield `data: ${JSON.stringify(body)}\n\ndata: [DONE]\n\n`;
        return;
      }
      const decoder = decoders[choice.index]!;
      const text = decoder.push(newTokenIds) + (isLast ? decoder.end() : '');
      const isFirst = !started[choice.index];
      started[choice.index] = true;
      const delta = dialect.delta({ choice, text, tokenIds: newTokenIds, isFirst, isLast }, job);
      if (isLast && choice.rows !== null) {
        const choices = joinParts([objectWith(delta, rowsOf(context, choice))]);
        yield 'data: ';
        yield* inTurns(objectWith({ ...head, ...noUsage }, [['choices', choices]]));
        yield '\n\n';
      } else {
        yield `data: ${JSON.stringify({ ...head, choices: [delta], ...noUsage })}\n\n`;
      }
    }
  }
  if (job.includeUsage) {
    yield `data: ${JSON.stringify({ ...head, choices: [], usage: usage(generation) })}\n\n`;
  }
  yield 'data: [DONE]\n\n';
}

/** An array in parts. */
function* joinParts(items: Iterable<JsonParts>): Generator<string> {
  let separator = '[';
  for (const item of items) {
    yield separator;
    yield* item;
    separator = ',';
  }
  yield separator === '[' ? '[]' : ']';
}

function transferParts({ metrics }: AnswerContext, { params, carried }: TransferAnswer): JsonParts {
  if (carried === null) return [JSON.stringify(params)];
  return objectWith(params, [['remote_routed_experts', counted(carriedParts(carried), metrics)]]);
}

function* rowsOf(context: AnswerContext, choice: Choice): Generator<readonly [string, JsonParts]> {
  const { job, metrics, numExperts } = context;
  if (choice.rows === null || job.rowFormat === null) return;
  if (job.transfer?.kind === 'keep' && !job.transfer.returnsRows) return;
  metrics.rowsSent(choice.rows.count, countPositions(choice.rows.missing));
  for (const [key, parts] of rowMembers(job.rowFormat, context.withLayers(choice.rows), numExperts)) {
    yield [key, counted(parts, metrics)];
  }
}

function* counted(parts: JsonParts, metrics: Metrics): Generator<string> {
  for (const part of parts) {
    metrics.rowBytesSent(part.length);
    yield part;
  }
}

/** Small parts together, large ones on their own, and the event loop's turn after each. */
async function* inTurns(parts: JsonParts): AsyncGenerator<string> {
  let pending = '';
  for (const part of parts) {
    pending += part;
    if (pending.length < TURN_CHARACTERS) continue;
    yield pending;
    pending = '';
    await nextTurn();
  }
  yield pending;
}

function usage({ choices }: Generation): Readonly<Record<string, unknown>> {
  // Choices of one prompt share it, and it is counted once. What the later ones find cached is the first one's work.
  const prompts = new Map<Uint32Array, number>();
  for (const { promptTokenIds, prefill } of choices) {
    if (!prompts.has(promptTokenIds)) prompts.set(promptTokenIds, prefill?.numCachedTokens ?? 0);
  }
  let promptTokens = 0;
  let cachedTokens = 0;
  for (const [prompt, numCached] of prompts) {
    promptTokens += prompt.length;
    cachedTokens += Math.min(numCached, prompt.length);
  }
  const completionTokens = choices.reduce((sum, choice) => sum + choice.tokenIds.length, 0);
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    prompt_tokens_details: { cached_tokens: cachedTokens },
  };
}

async function failureOf({ whyDead }: AnswerContext, { failure }: Choice): Promise<HttpError> {
  if (failure !== null) return failure;
  return HttpError.from(RoutedExpertsError.of('ENGINE_DEAD', await whyDead()));
}
