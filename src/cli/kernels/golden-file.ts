/** Reads answers of published models' own routers: ../shared/golden/README.md has the format. */

import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { RoutedExpertsError } from '../../contract/errors.ts';
import type { ExpertGroups, RouterScoring } from '../../contract/config.ts';
import type { RoutingFunction } from '../../contract/config.ts';
import { checkSelectionBias, routingFunction } from '../../kernels/router/routing-function.ts';

export type GoldenCase = Readonly<{
  router: RoutingFunction;
  numTokens: number;
  /** `[T, E]` */
  logits: Float32Array;
  /** `[E]`, or `null` for a function without. */
  bias: Float32Array | null;
  /** `[T, K]` */
  ids: Uint32Array;
  /** `[T, K]`, or `null` where only the ids are known. */
  weights: Float32Array | null;
  /** Whether the order of the ids counts, and no margin. */
  isOrdered: boolean;
}>;

export type Golden = Readonly<{ name: string; cases: readonly GoldenCase[] }>;

/** Throws `BAD_FILE`, naming the file, for anything that is not as the format says: a size above all. */
export function readGolden(path: string): Golden {
  const file = basename(path);
  try {
    const data = record(JSON.parse(readFileSync(path, 'utf8')), 'the file');
    const { cases } = data;
    const parts = cases === undefined ? [data] : list(cases, 'cases');
    const isOrdered = cases !== undefined;
    return {
      name: file.replace(/\.json$/, ''),
      cases: parts.map((part, i) => readCase(record(part, `cases[${i}]`), isOrdered)),
    };
  } catch (error) {
    if (error instanceof RoutedExpertsError && error.code === 'INVARIANT') throw error;
    throw RoutedExpertsError.of('BAD_FILE', file, (error as Error).message);
  }
}

type Fields = Readonly<Record<string, unknown>>;

function readCase(data: Fields, isOrdered: boolean): GoldenCase {
  const numTokens = numberOf(data, 'tokens');
  if (!Number.isInteger(numTokens) || numTokens < 1) throw new Error(`tokens is ${numTokens}; give 1 or more`);
  const router = readFunction(data, isOrdered);
  const { numExperts, topK } = router;
  const bias = router.hasSelectionBias ? floats(data, 'selectionBias', numExperts) : null;
  if (bias !== null) checkSelectionBias(router, bias);
  const ids = new Uint32Array(bytesOf(data, 'ids', numTokens * topK));
  const unknown = ids.find((id) => id >= numExperts);
  if (unknown !== undefined) throw new Error(`ids hold ${unknown}, of ${numExperts} experts`);
  return {
    router,
    numTokens,
    logits: floats(data, 'logits', numTokens * numExperts),
    bias,
    ids,
    weights: isOrdered && data['weights'] === undefined ? null : floats(data, 'weights', numTokens * topK),
    isOrdered,
  };
}

function readFunction(data: Fields, isOrdered: boolean): RoutingFunction {
  const params = data['params'] === undefined && isOrdered ? {} : record(data['params'], 'params');
  const optional = (name: string): number => (params[name] === undefined ? 0 : numberOf(params, name));
  const isOn = (name: string): boolean => {
    const value = params[name] ?? false;
    if (typeof value !== 'boolean') throw new Error(`params.${name} is ${JSON.stringify(value)}; give true or false`);
    return value;
  };
  const groups: ExpertGroups | null =
    params['groups'] === undefined
      ? null
      : {
          count: numberOf(params, 'groups'),
          keep: numberOf(params, 'topkGroups'),
          score: params['groupScore'] as ExpertGroups['score'],
        };
  return routingFunction({
    numExperts: numberOf(data, 'experts'),
    topK: numberOf(data, 'topK'),
    scoring: (params['scoring'] ?? 'topk-softmax') as RouterScoring,
    softCap: optional('softCap'),
    hasSelectionBias: isOn('selectionBias'),
    groups,
    renormalize: isOn('renormalize'),
    epsilon: optional('epsilon'),
    minDenominator: optional('minDenominator'),
    scale: params['scale'] === undefined ? 1 : numberOf(params, 'scale'),
    jitter: optional('jitter'),
  });
}

function floats(data: Fields, name: string, length: number): Float32Array {
  return new Float32Array(bytesOf(data, name, length));
}

function bytesOf(data: Fields, name: string, length: number): ArrayBuffer {
  const text = data[name];
  if (typeof text !== 'string') throw new Error(`${name} is ${typeof text}; give base64`);
  const bytes = Buffer.from(text, 'base64');
  if (bytes.length !== 4 * length) throw new Error(`${name} has ${bytes.length} bytes; give ${4 * length}`);
  return new Uint8Array(bytes).buffer;
}

function numberOf(data: Fields, name: string): number {
  const value = data[name];
  if (typeof value !== 'number') throw new Error(`${name} is ${JSON.stringify(value) ?? 'absent'}; give a number`);
  return value;
}

function record(value: unknown, name: string): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Error(`${name} is not an object`);
  return value as Fields;
}

function list(value: unknown, name: string): readonly unknown[] {
  if (!Array.isArray(value) || value.length === 0) throw new Error(`${name} is not a list of one or more`);
  return value;
}
