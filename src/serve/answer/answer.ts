/** Writes a generation as an HTTP body, a part at a time: one JSON value, events, or JSON with raw rows behind it. */

import { setImmediate as nextTurn } from 'node:timers/promises';
import { countPositions } from '../../capture/routed-rows.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';
import { isObject, type JsonObject } from '../../rows/json-object.ts';
import { InParts, jsonText, objectWith, type JsonParts } from '../../rows/json-parts.ts';
import { packedParts } from '../../rows/packed/write-packed.ts';
import { TokenDecoder } from '../body/tokenizer.ts';
import type { AnswerForm, AnswerHead, ChoiceView } from '../dialects/answer-form.ts';
import { HttpError } from '../http-error.ts';
import { carriedParts } from '../kv/carried-rows.ts';
import type { TransferAnswer } from '../kv/transfer-params.ts';
import { ChoiceLogprobs, type ShownLogprob } from './choice-logprobs.ts';
import type { Choice, ChoiceUpdate } from './generation.ts';
import { counted, packingOf, rowsToShow, withRows, type RowsContext } from './shown-rows.ts';

export type AnswerContext = AnswerHead &
  RowsContext &
  Readonly<{
    form: AnswerForm;
    /** Of the weights, for log-probabilities. */
    epoch: number;
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
 * the engine could not finish it, and with ROWS_MISSING.
 */
export async function jsonAnswer(context: AnswerContext): Promise<AsyncGenerator<string>> {
  const views = await wholeViews(context);
  const choices = views.map((view) => withRows(context, context.form.choice(view, context), view.choice));
  return inTurns(jsonText(wholeAnswer(context, choices, views)));
}

/**
 * The same with the rows as bytes: "rxa1", the length of the JSON text (u32, little-endian), the text, and the packed
 * rows of each choice that has `routed_experts: {"part": i}`, one behind the other (`rows/packed/packed-layout.ts`).
 */
export async function rawAnswer(context: AnswerContext): Promise<AsyncGenerator<string | Uint8Array>> {
  const views = await wholeViews(context);
  const rows = views.map(({ choice }) => rowsToShow(context, choice));
  let part = 0;
  const choices = views.map((view, i) => {
    const object = context.form.choice(view, context);
    return rows[i] === null
      ? object
      : { ...object, routed_experts: { part: part++ }, routed_experts_missing: rows[i]!.missing };
  });
  const text = Buffer.from([...jsonText(wholeAnswer(context, choices, views))].join(''), 'utf8');
  return rawParts(context, text, views, rows);
}

async function* rawParts(
  context: AnswerContext,
  text: Buffer,
  views: readonly ChoiceView[],
  rows: readonly ReturnType<typeof rowsToShow>[],
): AsyncGenerator<string | Uint8Array> {
  const { numExperts, metrics } = context;
  yield 'rxa1';
  yield new Uint8Array(Uint32Array.of(text.length).buffer);
  yield text;
  for (const [i, { choice }] of views.entries()) {
    const shown = rows[i] ?? null;
    if (shown === null) continue;
    metrics.rowsSent(shown.count, countPositions(shown.missing));
    for (const part of packedParts(shown, { ...packingOf(context, choice, shown), numExperts })) {
      metrics.rowBytesSent(part.length);
      // What a socket has not taken yet would change under it.
      yield part.slice();
      await nextTurn();
    }
  }
}

async function wholeViews(context: AnswerContext): Promise<ChoiceView[]> {
  const { generation } = context;
  const failed = generation.choices.find((choice) => choice.finishReason === 'error');
  if (failed !== undefined) throw await failureOf(context, failed);
  const views: ChoiceView[] = [];
  for (const choice of generation.choices) {
    const teller = new ChoiceTeller(context);
    views.push(await teller.next({ choice, newTokenIds: choice.tokenIds, isLast: true }));
  }
  return views;
}

function wholeAnswer(context: AnswerContext, choices: readonly JsonObject[], views: readonly ChoiceView[]): unknown {
  const answer = context.form.answer(choices, context, views);
  const kvTransfer = context.generation.choices.find((choice) => choice.kvTransfer !== null)?.kvTransfer;
  if (!kvTransfer || !isObject(answer)) return answer;
  return { ...answer, kv_transfer_params: new InParts(transferParts(context, kvTransfer)) };
}

/** Server-sent events from the first token to `[DONE]`; the last event of a choice has its finish reason and rows. */
export async function* streamAnswer(context: AnswerContext): AsyncGenerator<string> {
  const { form, generation } = context;
  const tellers = generation.choices.map(() => new ChoiceTeller(context));
  for (let updates = await generation.next(); updates.length > 0; updates = await generation.next()) {
    for (const update of updates) {
      const { choice, isLast } = update;
      const view = await tellers[choice.index]!.next(update);
      let event: unknown;
      try {
        if (choice.finishReason === 'error') throw await failureOf(context, choice);
        const delta = form.delta(view, context);
        event = form.event(isLast ? withRows(context, delta, choice) : delta, view, context);
      } catch (error) {
        if (!(error instanceof HttpError)) throw error;
        yield `data: ${JSON.stringify(error.body)}\n\ndata: [DONE]\n\n`;
        return;
      }
      yield* inTurns(eventText(event));
    }
  }
  for (const event of form.lastEvents(context)) yield `data: ${JSON.stringify(event)}\n\n`;
  yield 'data: [DONE]\n\n';
}

function* eventText(event: unknown): Generator<string> {
  yield 'data: ';
  yield* jsonText(event);
  yield '\n\n';
}

/** Tells what is new of a choice, or, in a cumulative form, what came so far. */
class ChoiceTeller {
  readonly #decoder: TokenDecoder;
  readonly #logprobs: ChoiceLogprobs | null;
  readonly #isCumulative: boolean;
  #text = '';
  #shown: ShownLogprob[] = [];
  #promptShown: readonly ShownLogprob[] | null = null;
  #numTold = 0;
  #isFirst = true;

  constructor({ job, form, tokenizer, epoch }: AnswerContext) {
    this.#decoder = new TokenDecoder(tokenizer);
    this.#isCumulative = form.isCumulative === true;
    const { vocabSize } = tokenizer;
    this.#logprobs = job.logprobs === null ? null : new ChoiceLogprobs(job.logprobs, { vocabSize, epoch });
  }

  async next({ choice, newTokenIds, isLast }: ChoiceUpdate): Promise<ChoiceView> {
    const isFirst = this.#isFirst;
    this.#isFirst = false;
    const text = this.#decoder.push(newTokenIds) + (isLast ? this.#decoder.end() : '');
    if (isFirst && this.#logprobs !== null) {
      this.#promptShown = await this.#logprobs.takePrompt(choice.promptTokenIds);
    }
    const logprobs = this.#logprobs === null ? null : await this.#logprobs.take(newTokenIds);
    const isShown = isFirst || this.#isCumulative;
    const beside = { choice, isFirst, isLast, promptLogprobs: isShown ? this.#promptShown : null };
    if (!this.#isCumulative) return { ...beside, text, tokenIds: newTokenIds, logprobs };
    this.#text += text;
    if (logprobs !== null) for (const one of logprobs) this.#shown.push(one);
    this.#numTold += newTokenIds.length;
    const tokenIds = choice.tokenIds.slice(0, this.#numTold);
    return { ...beside, text: this.#text, tokenIds, logprobs: logprobs === null ? null : this.#shown };
  }
}

function transferParts({ metrics }: AnswerContext, { params, carried }: TransferAnswer): JsonParts {
  if (carried === null) return [JSON.stringify(params)];
  return objectWith(params, [['remote_routed_experts', counted(carriedParts(carried), metrics)]]);
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

async function failureOf({ whyDead }: AnswerContext, { failure }: Choice): Promise<HttpError> {
  if (failure !== null) return failure;
  return HttpError.from(RoutedExpertsError.of('ENGINE_DEAD', await whyDead()));
}
