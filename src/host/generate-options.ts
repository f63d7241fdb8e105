/** How one request of the library is sampled, and the engine's request that it becomes. */

import { RoutedExpertsError } from '../contract/errors.ts';
import type { EngineRequest, SamplingParams } from '../contract/request.ts';
import { requireNames, requireOneOf, requireText } from './option-checks.ts';

/** How one request is sampled, and what comes back. */
export type GenerateOptions = Partial<SamplingParams> &
  Readonly<{
    /** Unique among the requests alive; made up where it is left out. */
    requestId?: string;
    /** Policy `priority`: the smaller number goes first. */
    priority?: number;
    /** Requests with different salts share no cached block. */
    cacheSalt?: string;
    /** Ends the request when it aborts; what was asked for then rejects with its reason. */
    signal?: AbortSignal;
  }>;

const OPTIONS: Readonly<Record<keyof GenerateOptions, true>> = {
  maxTokens: true,
  minTokens: true,
  eosTokenId: true,
  stopTokenIds: true,
  returnRoutedExperts: true,
  routedExpertsPromptStart: true,
  requestId: true,
  priority: true,
  cacheSalt: true,
  signal: true,
};
const OPTION_NAMES = Object.keys(OPTIONS);

const DEFAULT_MAX_TOKENS = 16;

/** What the engine adds to a request: its place among the others, and the tokens that the model has. */
type Surroundings = Readonly<{ number: number; vocabSize: number }>;

/** Throws UNKNOWN_NAME for an option that there is not, and BAD_VALUE. The engine core checks the rest. */
export function engineRequest(
  prompt: ArrayLike<number>,
  options: GenerateOptions,
  { number, vocabSize }: Surroundings,
): EngineRequest {
  requireNames('generate', options, OPTION_NAMES);
  const { requestId = `request-${number}`, cacheSalt, returnRoutedExperts = false } = options;
  const { eosTokenId = null, stopTokenIds = [] } = options;
  requireText('requestId', requestId);
  if (cacheSalt !== undefined) requireText('cacheSalt', cacheSalt);
  requireOneOf('returnRoutedExperts', returnRoutedExperts, [true, false]);
  if (eosTokenId !== null) requireToken('eosTokenId', eosTokenId, vocabSize);
  requireTokens('stopTokenIds', stopTokenIds, vocabSize);
  requireTokens('prompt', prompt, vocabSize);
  return {
    requestId,
    promptTokenIds: Uint32Array.from(prompt),
    sampling: {
      maxTokens: options.maxTokens ?? DEFAULT_MAX_TOKENS,
      minTokens: options.minTokens ?? 0,
      eosTokenId,
      stopTokenIds,
      returnRoutedExperts,
      routedExpertsPromptStart: options.routedExpertsPromptStart ?? 0,
    },
    priority: options.priority ?? 0,
    arrivalTime: number,
    cacheSalt: cacheSalt ?? null,
  };
}

function requireTokens(name: string, tokens: ArrayLike<number>, vocabSize: number): void {
  const length: unknown = (tokens as ArrayLike<number> | undefined)?.length;
  if (!Number.isInteger(length)) throw RoutedExpertsError.of('BAD_VALUE', name, tokens, 'an array of token ids');
  for (let i = 0; i < tokens.length; i++) requireToken(`${name}[${i}]`, tokens[i]!, vocabSize);
}

function requireToken(name: string, token: number, vocabSize: number): void {
  if (Number.isInteger(token) && token >= 0 && token < vocabSize) return;
  throw RoutedExpertsError.of('BAD_VALUE', name, token, `a token id in [0, ${vocabSize})`);
}
