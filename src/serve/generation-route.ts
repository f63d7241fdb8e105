/** The life of one generation request: read → admit → submit → write, or abort when its client goes away. */

import type { FastifyReply, FastifyRequest } from 'fastify';
import type { EngineRequest } from '../contract/request.ts';
import type { Admission } from './admission.ts';
import type { AnswerContext } from './answer.ts';
import { jsonAnswer, streamAnswer } from './answer.ts';
import { isObject } from '../rows/json-object.ts';
import { BodyFields } from './body/body-fields.ts';
import type { Dialect } from './dialect.ts';
import type { EngineHost } from './engine-host.ts';
import type { Generation } from './generation.ts';
import type { GenerationJob, JobLimits } from './body/generation-job.ts';
import { HttpError } from './http-error.ts';
import type { Metrics } from './metrics.ts';
import { checkTransfer } from './body/sampling-fields.ts';
import { writeAnswer } from './response-writer.ts';
import type { ByteTokenizer } from './body/tokenizer.ts';

export type GenerationServices = Readonly<{
  host: EngineHost;
  admission: Admission;
  metrics: Metrics;
  limits: JobLimits;
  tokenizer: ByteTokenizer;
  stallMs: number;
}>;

export type BodyReader = (fields: BodyFields, headerId: string | null) => GenerationJob;

export async function serveGeneration(
  request: FastifyRequest,
  reply: FastifyReply,
  services: GenerationServices,
  dialect: Dialect,
  readBody: BodyReader,
): Promise<void> {
  const job = readBody(fieldsOf(request), headerIdOf(request));
  checkTransfer(job);
  const release = services.admission.admit(job.prompts.length * job.n);
  try {
    const id = dialect.idPrefix + job.requestId;
    const generation = submit(services, id, job);
    request.summary = () => summaryOf(id, job, generation);
    const abort = (): void => services.host.abort(generation);
    reply.raw.once('close', abort);
    // A client can be gone before the handler runs; its close event is over then.
    if (request.raw.socket.destroyed) abort();
    const context: AnswerContext = {
      dialect,
      job,
      generation,
      id,
      created: Math.floor(Date.now() / 1000),
      model: services.limits.servedModel,
      numExperts: services.host.options.model.numExperts,
      withLayers: services.host.withLayers,
      tokenizer: services.tokenizer,
      metrics: services.metrics,
      whyDead: () => services.host.engine.whyDead(),
    };
    await answer(reply, context, services.stallMs);
  } finally {
    release();
  }
}

async function answer(reply: FastifyReply, context: AnswerContext, stallMs: number): Promise<void> {
  if (!context.job.stream) await context.generation.finished();
  // This rejects, if at all, before anything is sent.
  const parts = context.job.stream ? streamAnswer(context) : await jsonAnswer(context);
  reply.hijack();
  if (reply.raw.destroyed) return;
  const type = context.job.stream ? 'text/event-stream; charset=utf-8' : 'application/json; charset=utf-8';
  reply.raw.writeHead(200, {
    'content-type': type,
    'cache-control': 'no-store',
    'x-request-id': context.job.requestId,
  });
  try {
    await writeAnswer(reply.raw, parts, stallMs);
  } catch (error) {
    // The client must see that its answer was cut.
    reply.raw.destroy();
    throw error;
  }
}

function fieldsOf({ body }: FastifyRequest): BodyFields {
  if (!isObject(body)) throw HttpError.of('BAD_JSON', null, 'it is empty');
  return new BodyFields(body);
}

function headerIdOf({ headers }: FastifyRequest): string | null {
  const id = headers['x-request-id'];
  return typeof id === 'string' ? id : null;
}

/** Makes an engine request for each choice. All begin with the same blocks: the KV of the first serves the others. */
function submit({ host, metrics }: GenerationServices, id: string, job: GenerationJob): Generation {
  const isSingle = job.prompts.length * job.n === 1;
  const arrivalTime = performance.now();
  const requests = job.prompts.flatMap((promptTokenIds, p) =>
    Array.from({ length: job.n }, (_, i): EngineRequest => ({
      requestId: isSingle ? id : `${id}-${p * job.n + i}`,
      promptTokenIds,
      sampling: job.sampling,
      priority: job.priority,
      arrivalTime,
      cacheSalt: job.cacheSalt,
    })),
  );
  const generation = host.submit(requests, job.transfer);
  metrics.submitted(
    requests.map(({ requestId }) => requestId),
    job.sampling.maxTokens,
    job.n,
  );
  return generation;
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
