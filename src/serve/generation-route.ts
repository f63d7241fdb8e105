/** The life of one generation request: read → admit → submit → write, or abort when its client goes away. */

import type { FastifyReply, FastifyRequest } from 'fastify';
import type { EngineRequest } from '../contract/request.ts';
import type { RowsFiles } from '../rows/files/rows-files.ts';
import { isObject } from '../rows/json-object.ts';
import type { Admission } from './admission.ts';
import { jsonAnswer, rawAnswer, streamAnswer, type AnswerContext } from './answer/answer.ts';
import { Generation } from './answer/generation.ts';
import { writeAnswer } from './answer/response-writer.ts';
import { badField, BodyFields } from './body/body-fields.ts';
import type { GenerationJob, JobLimits } from './body/generation-job.ts';
import { checkTransfer } from './body/sampling-fields.ts';
import type { ByteTokenizer } from './body/tokenizer.ts';
import type { RunningAnswers } from './control/running-answers.ts';
import type { WeightControl } from './control/weight-control.ts';
import type { Asked } from './dialects/answer-form.ts';
import type { BodyReader } from './dialects/endpoints.ts';
import type { EngineHost } from './engine-host.ts';
import { HttpError } from './http-error.ts';
import type { Metrics } from './metrics.ts';

export type GenerationServices = Readonly<{
  host: EngineHost;
  admission: Admission;
  weights: WeightControl;
  running: RunningAnswers;
  metrics: Metrics;
  limits: JobLimits;
  tokenizer: ByteTokenizer;
  /** Where rows go beside their clients; `null`: nowhere. */
  rowsFiles: RowsFiles | null;
  stallMs: number;
}>;

export async function serveGeneration(
  request: FastifyRequest,
  reply: FastifyReply,
  services: GenerationServices,
  readBody: BodyReader,
): Promise<void> {
  const facts = { headerId: headerIdOf(request), hasSession: request.headers['x-session-id'] !== undefined };
  const asked = readBody(fieldsOf(request), facts);
  const isRaw = wantsRaw(request);
  const job = isRaw ? withRawRows(asked.job) : asked.job;
  checkTransfer(job);
  const release = services.admission.admit(job.prompts.length * job.n);
  try {
    await new Serving(request, reply, services, { ...asked, job }).serve(isRaw);
  } finally {
    release();
  }
}

/** One request from its admission to the end of its answer. */
class Serving {
  readonly #request: FastifyRequest;
  readonly #reply: FastifyReply;
  readonly #services: GenerationServices;
  readonly #asked: Asked;
  readonly #id: string;
  /** Before it runs: the client is gone, or the request was aborted by its id. */
  readonly #ended = new AbortController();
  #generation: Generation | null = null;

  constructor(request: FastifyRequest, reply: FastifyReply, services: GenerationServices, asked: Asked) {
    this.#request = request;
    this.#reply = reply;
    this.#services = services;
    this.#asked = asked;
    this.#id = asked.form.idPrefix + asked.job.requestId;
  }

  async serve(isRaw: boolean): Promise<void> {
    const { weights, running } = this.#services;
    const abort = (): void => this.#abort();
    this.#reply.raw.once('close', abort);
    // A client can be gone before the handler runs; its close event is over then.
    if (this.#request.raw.socket.destroyed) abort();
    const forget = running.add({ id: this.#id, abort });
    try {
      const requests = engineRequests(this.#id, this.#asked.job);
      const mayRun = await weights.mayRun(this.#ended.signal);
      const generation = mayRun ? this.#submit(requests) : Generation.aborted(requests);
      this.#generation = generation;
      this.#request.summary = () => summaryOf(this.#id, this.#asked.job, generation);
      await this.#answer(this.#context(generation), isRaw);
    } finally {
      forget();
      await this.#save();
    }
  }

  #abort(): void {
    this.#ended.abort();
    if (this.#generation !== null) this.#services.host.abort(this.#generation);
  }

  #submit(requests: readonly EngineRequest[]): Generation {
    const { host, metrics } = this.#services;
    const { job } = this.#asked;
    const generation = host.submit(requests, job.transfer);
    const ids = requests.map(({ requestId }) => requestId);
    metrics.submitted(ids, job.sampling.maxTokens, job.n);
    return generation;
  }

  /** The request holds its place until its rows are on their way: files that are slow hold clients back. */
  async #save(): Promise<void> {
    const { rowsFiles, host, weights } = this.#services;
    if (rowsFiles === null || this.#generation === null) return;
    for (const choice of this.#generation.choices) {
      if (choice.rows === null || choice.finishReason === null) continue;
      const { requestId, promptTokenIds, finishReason } = choice;
      await rowsFiles
        .add({
          requestId,
          tokenIds: [...promptTokenIds, ...choice.tokenIds],
          numPromptTokens: promptTokenIds.length,
          rows: host.withLayers(choice.rows),
          finishReason,
          weightVersion: weights.version,
          steps: choice.steps ?? [],
        })
        .catch((error: Error) => this.#request.log.error({ reason: error.message }, 'rows were not saved'));
    }
  }

  #context(generation: Generation): AnswerContext {
    const { host, limits, weights, tokenizer, metrics } = this.#services;
    return {
      ...this.#asked,
      generation,
      id: this.#id,
      created: Math.floor(Date.now() / 1000),
      model: limits.servedModel,
      eosTokenId: limits.eosTokenId,
      numExperts: host.options.model.numExperts,
      withLayers: host.withLayers,
      epoch: weights.epoch,
      weightVersion: () => weights.version,
      tokenizer,
      metrics,
      whyDead: () => host.engine.whyDead(),
    };
  }

  async #answer(context: AnswerContext, isRaw: boolean): Promise<void> {
    const { stream, requestId } = context.job;
    if (!stream) await context.generation.finished();
    // This rejects, if at all, before anything is sent.
    const parts = stream ? streamAnswer(context) : isRaw ? await rawAnswer(context) : await jsonAnswer(context);
    const { raw } = this.#reply.hijack();
    if (raw.destroyed) return;
    const type = stream ? 'text/event-stream; charset=utf-8' : 'application/json; charset=utf-8';
    raw.writeHead(200, {
      'content-type': isRaw ? RAW : type,
      'cache-control': 'no-store',
      'x-request-id': requestId,
    });
    try {
      await writeAnswer(raw, parts, this.#services.stallMs);
    } catch (error) {
      // The client must see that its answer was cut.
      raw.destroy();
      throw error;
    }
  }
}

const RAW = 'application/octet-stream';

/** Whether the answer is to be bytes: a client that takes anything may name them too, but not first. */
function wantsRaw({ headers }: FastifyRequest): boolean {
  return headers.accept?.trimStart().toLowerCase().startsWith(RAW) === true;
}

function withRawRows(job: GenerationJob): GenerationJob {
  if (job.stream) throw badField('stream', true, `false with "accept: ${RAW}"`);
  if (job.rows === null || job.rows.format === 'packed') return job;
  if (!job.rows.isNamed) return { ...job, rows: { ...job.rows, format: 'packed', missing: 'said' } };
  throw badField('routed_experts_format', job.rows.format, `packed or packed-zstd with "accept: ${RAW}"`);
}

function fieldsOf({ body }: FastifyRequest): BodyFields {
  if (!isObject(body)) throw HttpError.of('BAD_JSON', null, 'it is empty');
  return new BodyFields(body);
}

function headerIdOf({ headers }: FastifyRequest): string | null {
  const id = headers['x-request-id'];
  return typeof id === 'string' ? id : null;
}

/** An engine request for each choice. All begin with the same blocks: the KV of the first serves the others. */
function engineRequests(id: string, job: GenerationJob): readonly EngineRequest[] {
  const isSingle = job.prompts.length * job.n === 1;
  const arrivalTime = performance.now();
  const { sampling, priority, cacheSalt } = job;
  return job.prompts.flatMap((promptTokenIds, p) => {
    // The engine knows no start behind the prompt: what it returns more is cut off.
    const routedExpertsPromptStart = Math.min(sampling.routedExpertsPromptStart, promptTokenIds.length - 1);
    return Array.from({ length: job.n }, (_, i): EngineRequest => ({
      requestId: isSingle ? id : `${id}-${p * job.n + i}`,
      promptTokenIds,
      sampling: { ...sampling, routedExpertsPromptStart },
      priority,
      arrivalTime,
      cacheSalt,
    }));
  });
}

function summaryOf(id: string, job: GenerationJob, { choices }: Generation): Readonly<Record<string, unknown>> {
  return {
    id,
    stream: job.stream,
    promptTokens: job.prompts.reduce((sum, prompt) => sum + prompt.length, 0),
    completionTokens: choices.reduce((sum, choice) => sum + choice.tokenIds.length, 0),
    finishReasons: choices.map((choice) => choice.finishReason),
    rows: choices.reduce((sum, choice) => sum + (choice.rows?.count ?? 0), 0),
    ignoredFields: job.ignoredFields.length > 0 ? job.ignoredFields : undefined,
  };
}
