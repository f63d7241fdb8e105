/** The errors that new workers mend. */

import { RoutedExpertsError, type ErrorCode } from '../../contract/errors.ts';

const LOSSES: readonly ErrorCode[] = ['WORKER_LOST', 'DEVICE_LOST', 'COLLECTIVE_TIMEOUT'];

export function isLoss(error: unknown): error is RoutedExpertsError {
  return error instanceof RoutedExpertsError && LOSSES.includes(error.code);
}
