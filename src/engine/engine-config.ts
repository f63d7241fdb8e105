/** Checks an engine configuration. */

import type { EngineConfig } from '../contract/config.ts';
import { RoutedExpertsError } from '../contract/errors.ts';

const wholeNumber = (name: keyof EngineConfig, value: unknown, least: number, most = 2 ** 31 - 1): void => {
  if (Number.isInteger(value) && (value as number) >= least && (value as number) <= most) return;
  throw RoutedExpertsError.of('BAD_VALUE', name, value, `a whole number in [${least}, ${most}]`);
};

const flag = (name: keyof EngineConfig, value: unknown): void => {
  if (typeof value !== 'boolean') throw RoutedExpertsError.of('BAD_VALUE', name, value, 'true or false');
};

/**
 * Checks every field; throws BAD_VALUE with the field's name, its value and what is wanted. The limits keep every
 * counter and every KV slot number inside 31 bits.
 */
export const validateEngineConfig = (config: EngineConfig): void => {
  wholeNumber('blockSize', config.blockSize, 1, 2 ** 16);
  // Before the pool, whose size follows from it where the caller gives none.
  wholeNumber('maxModelLen', config.maxModelLen, 2, 2 ** 28);
  wholeNumber('numBlocks', config.numBlocks, 2, 2 ** 24);
  if (config.numBlocks * config.blockSize > 2 ** 31) {
    const most = Math.floor(2 ** 31 / config.blockSize);
    throw RoutedExpertsError.of(
      'BAD_VALUE',
      'numBlocks',
      config.numBlocks,
      `at most ${most} blocks of ${config.blockSize} tokens`,
    );
  }
  wholeNumber('maxNumSeqs', config.maxNumSeqs, 1, 2 ** 20);
  wholeNumber('maxNumBatchedTokens', config.maxNumBatchedTokens, 1, 2 ** 24);
  if (config.policy !== 'fcfs' && config.policy !== 'priority') {
    throw RoutedExpertsError.of('BAD_VALUE', 'policy', config.policy, '"fcfs" or "priority"');
  }
  flag('asyncScheduling', config.asyncScheduling);
  flag('enablePrefixCaching', config.enablePrefixCaching);
  flag('enableChunkedPrefill', config.enableChunkedPrefill);
  flag('reserveFullIsl', config.reserveFullIsl);
  wholeNumber('longPrefillTokenThreshold', config.longPrefillTokenThreshold, 0);
  wholeNumber('numSpeculativeTokens', config.numSpeculativeTokens, 0, 64);
  checkPipeline(config);
  if (!(typeof config.watermark === 'number' && config.watermark >= 0 && config.watermark < 1)) {
    throw RoutedExpertsError.of('BAD_VALUE', 'watermark', config.watermark, 'a share of the pool in [0, 1)');
  }
};

/** A stage learns what the last one sampled from the scheduler, and so only once the step before has ended. */
const checkPipeline = (config: EngineConfig): void => {
  const { pipelineParallelSize = 1, asyncScheduling, numSpeculativeTokens } = config;
  wholeNumber('pipelineParallelSize', pipelineParallelSize, 1, 2 ** 16);
  if (pipelineParallelSize === 1) return;
  const refused = (name: keyof EngineConfig, value: unknown, wanted: string): RoutedExpertsError =>
    RoutedExpertsError.of('BAD_VALUE', name, value, `${wanted} with ${pipelineParallelSize} pipeline stages`);
  if (asyncScheduling) throw refused('asyncScheduling', true, 'false');
  if (numSpeculativeTokens > 0) throw refused('numSpeculativeTokens', numSpeculativeTokens, '0');
};
