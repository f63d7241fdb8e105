/**
 * Recorded schedules: one scenario of vLLM's real scheduler a line. This file reads and checks a line;
 * `schedule-check.ts` runs it. A line that holds anything this reader does not know is refused by name, since a check
 * that skips a field proves nothing.
 */

import type { EngineConfig } from '../contract/config.ts';
import { RoutedExpertsError } from '../contract/errors.ts';
import { validateEngineConfig } from '../engine/engine-config.ts';

export type RowModel = Readonly<{ layers: number; topK: number; experts: number }>;

export type ScheduleRequest = Readonly<{
  id: string;
  promptTokenIds: readonly number[];
  maxTokens: number;
  priority: number;
  arrivalTime: number;
  stopTokenIds: readonly number[];
  minTokens: number;
  cacheSalt: string | null;
}>;

export type RecordedKind = 'new' | 'resumed' | 'running';

export type RecordedScheduled = Readonly<{
  id: string;
  kind: RecordedKind;
  computed: number;
  tokens: number;
  newBlocks: readonly number[];
  drafts: readonly number[];
}>;

export type RecordedEmission = Readonly<{
  id: string;
  tokens: readonly number[];
  rows: number;
  finish: 'stop' | 'length' | null;
}>;

export type RecordedEvent =
  | Readonly<{ op: 'add'; id: string }>
  | Readonly<{
      op: 'schedule';
      step: number;
      scheduled: readonly RecordedScheduled[];
      preempted: readonly string[];
      finished: readonly string[];
      running: readonly string[];
      freeQueue: readonly number[];
    }>
  | Readonly<{
      op: 'output';
      step: number;
      order: readonly string[];
      sampled: readonly (readonly number[])[];
      emitted: readonly RecordedEmission[];
      freeQueue: readonly number[];
    }>
  | Readonly<{ op: 'drafts'; ids: readonly string[]; drafts: readonly (readonly number[])[] }>
  | Readonly<{ op: 'abort'; id: string; freeQueue: readonly number[] }>
  | Readonly<{ op: 'resetPrefixCache'; resetRunning: boolean; ok: boolean; freeQueue: readonly number[] }>;

export type RecordedFinal = Readonly<{
  outputTokenIds: readonly number[];
  finish: 'stop' | 'length' | 'abort' | null;
  rows: number;
  preemptions: number;
}>;

export type RecordedSchedule = Readonly<{
  name: string;
  config: EngineConfig;
  rowModel: RowModel;
  requests: readonly ScheduleRequest[];
  timeline: readonly RecordedEvent[];
  final: Readonly<Record<string, RecordedFinal>>;
}>;

type Fields = Readonly<Record<string, unknown>>;

/** Thrown inside this file, and turned into BAD_TRACE_LINE or BAD_VALUE at its edge. */
class Problem extends Error {}

const CONFIG_FIELDS = [
  'blockSize',
  'numBlocks',
  'maxNumSeqs',
  'maxNumBatchedTokens',
  'maxModelLen',
  'policy',
  'asyncScheduling',
  'enablePrefixCaching',
  'enableChunkedPrefill',
  'longPrefillTokenThreshold',
  'reserveFullIsl',
  'watermark',
  'numSpeculativeTokens',
] as const satisfies readonly (keyof EngineConfig)[];

const show = (value: unknown): string => {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 57)}…` : text;
};

/** Reads an object that has all fields of `required`, and otherwise only fields of `optional`. */
const object = (
  value: unknown,
  where: string,
  required: readonly string[],
  optional: readonly string[] = [],
): Fields => {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new Problem(`${where} is ${show(value)}, not an object`);
  }
  for (const name of required) if (!Object.hasOwn(value, name)) throw new Problem(`${where} has no field "${name}"`);
  for (const name of Object.keys(value)) {
    if (!required.includes(name) && !optional.includes(name))
      throw new Problem(`${where} has an unknown field "${name}"`);
  }
  return value as Fields;
};

const text = (value: unknown, where: string): string => {
  if (typeof value !== 'string') throw new Problem(`${where} is ${show(value)}, not a string`);
  return value;
};

const number = (value: unknown, where: string): number => {
  if (typeof value !== 'number' || !Number.isFinite(value))
    throw new Problem(`${where} is ${show(value)}, not a number`);
  return value;
};

const whole = (value: unknown, where: string, least = 0): number => {
  if (!Number.isInteger(value) || (value as number) < least || (value as number) > 0xffff_ffff) {
    throw new Problem(`${where} is ${show(value)}, not a whole number ≥ ${least}`);
  }
  return value as number;
};

const bool = (value: unknown, where: string): boolean => {
  if (typeof value !== 'boolean') throw new Problem(`${where} is ${show(value)}, not true or false`);
  return value;
};

const oneOf = <T>(value: unknown, where: string, known: readonly T[]): T => {
  if (!known.includes(value as T))
    throw new Problem(`${where} is ${show(value)}, not one of ${known.map(show).join(', ')}`);
  return value as T;
};

const list = <T>(value: unknown, where: string, read: (entry: unknown, where: string) => T): T[] => {
  if (!Array.isArray(value)) throw new Problem(`${where} is ${show(value)}, not a list`);
  return value.map((entry, i) => read(entry, `${where}[${i}]`));
};

const wholes = (value: unknown, where: string): number[] => list(value, where, whole);
const texts = (value: unknown, where: string): string[] => list(value, where, text);

const readConfig = (value: unknown): EngineConfig => {
  const config = object(value, 'config', CONFIG_FIELDS) as unknown as EngineConfig;
  try {
    validateEngineConfig(config);
  } catch (error) {
    throw new Problem(`config: ${(error as Error).message}`);
  }
  return config;
};

const readRowModel = (value: unknown): RowModel => {
  const fields = object(value, 'rowModel', ['layers', 'topK', 'experts']);
  const layers = whole(fields['layers'], 'rowModel.layers', 1);
  const topK = whole(fields['topK'], 'rowModel.topK', 1);
  const experts = whole(fields['experts'], 'rowModel.experts', 1);
  if (topK > experts) throw new Problem(`rowModel.topK is ${topK}, more than its ${experts} experts`);
  if (experts > 65_536) throw new Problem(`rowModel.experts is ${experts}, more than a u16 row can name`);
  return { layers, topK, experts };
};

const readRequest = (value: unknown, where: string): ScheduleRequest => {
  const fields = object(
    value,
    where,
    ['id', 'promptTokenIds', 'maxTokens', 'priority', 'arrivalTime'],
    ['stopTokenIds', 'minTokens', 'cacheSalt'],
  );
  const salt = fields['cacheSalt'];
  const promptTokenIds = wholes(fields['promptTokenIds'], `${where}.promptTokenIds`);
  if (promptTokenIds.length === 0) throw new Problem(`${where}.promptTokenIds is empty`);
  return {
    id: text(fields['id'], `${where}.id`),
    promptTokenIds,
    maxTokens: whole(fields['maxTokens'], `${where}.maxTokens`, 1),
    priority: number(fields['priority'], `${where}.priority`),
    arrivalTime: number(fields['arrivalTime'], `${where}.arrivalTime`),
    stopTokenIds: wholes(fields['stopTokenIds'] ?? [], `${where}.stopTokenIds`),
    minTokens: whole(fields['minTokens'] ?? 0, `${where}.minTokens`),
    cacheSalt: salt === undefined || salt === null ? null : text(salt, `${where}.cacheSalt`),
  };
};

const readScheduled = (value: unknown, where: string): RecordedScheduled => {
  const fields = object(value, where, ['id', 'kind', 'computed', 'tokens', 'newBlocks'], ['drafts']);
  return {
    id: text(fields['id'], `${where}.id`),
    kind: oneOf(fields['kind'], `${where}.kind`, ['new', 'resumed', 'running'] as const),
    computed: whole(fields['computed'], `${where}.computed`),
    tokens: whole(fields['tokens'], `${where}.tokens`, 1),
    newBlocks: wholes(fields['newBlocks'], `${where}.newBlocks`),
    drafts: list(fields['drafts'] ?? [], `${where}.drafts`, (entry, at) => whole(entry, at, -1)),
  };
};

const readEmission = (value: unknown, where: string): RecordedEmission => {
  const fields = object(value, where, ['id', 'tokens', 'rows', 'finish']);
  return {
    id: text(fields['id'], `${where}.id`),
    tokens: wholes(fields['tokens'], `${where}.tokens`),
    rows: whole(fields['rows'], `${where}.rows`),
    finish: oneOf(fields['finish'], `${where}.finish`, ['stop', 'length', null] as const),
  };
};

const readEvent = (value: unknown, where: string): RecordedEvent => {
  const op = (value as { op?: unknown } | null)?.op;
  switch (op) {
    case 'add':
      return { op, id: text(object(value, where, ['op', 'id'])['id'], `${where}.id`) };
    case 'schedule': {
      const fields = object(value, where, ['op', 'step', 'scheduled', 'preempted', 'finished', 'running', 'freeQueue']);
      return {
        op,
        step: whole(fields['step'], `${where}.step`),
        scheduled: list(fields['scheduled'], `${where}.scheduled`, readScheduled),
        preempted: texts(fields['preempted'], `${where}.preempted`),
        finished: texts(fields['finished'], `${where}.finished`),
        running: texts(fields['running'], `${where}.running`),
        freeQueue: wholes(fields['freeQueue'], `${where}.freeQueue`),
      };
    }
    case 'output': {
      const fields = object(value, where, ['op', 'step', 'order', 'sampled', 'emitted', 'freeQueue']);
      const order = texts(fields['order'], `${where}.order`);
      const sampled = list(fields['sampled'], `${where}.sampled`, wholes);
      if (order.length !== sampled.length) {
        throw new Problem(`${where} has ${order.length} entries in order but ${sampled.length} in sampled`);
      }
      return {
        op,
        step: whole(fields['step'], `${where}.step`),
        order,
        sampled,
        emitted: list(fields['emitted'], `${where}.emitted`, readEmission),
        freeQueue: wholes(fields['freeQueue'], `${where}.freeQueue`),
      };
    }
    case 'drafts': {
      const fields = object(value, where, ['op', 'ids', 'drafts']);
      const ids = texts(fields['ids'], `${where}.ids`);
      const drafts = list(fields['drafts'], `${where}.drafts`, wholes);
      if (ids.length !== drafts.length) {
        throw new Problem(`${where} has ${ids.length} entries in ids but ${drafts.length} in drafts`);
      }
      return { op, ids, drafts };
    }
    case 'abort': {
      const fields = object(value, where, ['op', 'id', 'freeQueue']);
      return {
        op,
        id: text(fields['id'], `${where}.id`),
        freeQueue: wholes(fields['freeQueue'], `${where}.freeQueue`),
      };
    }
    case 'resetPrefixCache': {
      const fields = object(value, where, ['op', 'resetRunning', 'ok', 'freeQueue']);
      return {
        op,
        resetRunning: bool(fields['resetRunning'], `${where}.resetRunning`),
        ok: bool(fields['ok'], `${where}.ok`),
        freeQueue: wholes(fields['freeQueue'], `${where}.freeQueue`),
      };
    }
    default:
      throw new Problem(`${where}.op is ${show(op)}, which no replay knows`);
  }
};

const readFinal = (value: unknown, where: string): RecordedFinal => {
  const fields = object(value, where, ['outputTokenIds', 'finish', 'rows', 'preemptions']);
  return {
    outputTokenIds: wholes(fields['outputTokenIds'], `${where}.outputTokenIds`),
    finish: oneOf(fields['finish'], `${where}.finish`, ['stop', 'length', 'abort', null] as const),
    rows: whole(fields['rows'], `${where}.rows`),
    preemptions: whole(fields['preemptions'], `${where}.preemptions`),
  };
};

const readRecording = (value: unknown): RecordedSchedule => {
  const fields = object(value, 'the scenario', ['name', 'config', 'rowModel', 'requests', 'timeline', 'final']);
  const requests = list(fields['requests'], 'requests', readRequest);
  const ids = new Set<string>();
  for (const { id } of requests) {
    if (ids.has(id)) throw new Problem(`requests has the id "${id}" twice`);
    ids.add(id);
  }
  const final: Record<string, RecordedFinal> = {};
  const finals = object(fields['final'], 'final', [], [...ids]);
  for (const [id, entry] of Object.entries(finals)) final[id] = readFinal(entry, `final.${id}`);
  return {
    name: text(fields['name'], 'name'),
    config: readConfig(fields['config']),
    rowModel: readRowModel(fields['rowModel']),
    requests,
    timeline: list(fields['timeline'], 'timeline', readEvent),
    final,
  };
};

/**
 * Reads one line of a recording.
 *
 * @param file name of the file, and `line` the number of the line from 1, for messages
 * @throws BAD_TRACE_LINE for broken JSON, a missing or unknown field, an unknown event, or a configuration of another
 * version
 */
export const parseSchedule = (json: string, file: string, line: number): RecordedSchedule => {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch (error) {
    throw RoutedExpertsError.of('BAD_TRACE_LINE', file, line, (error as Error).message);
  }
  try {
    return readRecording(value);
  } catch (error) {
    if (error instanceof Problem) throw RoutedExpertsError.of('BAD_TRACE_LINE', file, line, error.message);
    throw error;
  }
};
