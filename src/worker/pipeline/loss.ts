/** The errors that new workers mend. */

import { RoutedExpertsError } from '../../contract/errors.ts';

export function isLoss(error: unknown): error is RoutedExpertsError {
  return error instanceof RoutedExpertsError && (error.code === 'WORKER_LOST' || error.code === 'DEVICE_LOST');
}
