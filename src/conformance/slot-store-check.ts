/** Checks recorded schedules with vLLM's own capture design, so that the rows of every emission are compared too. */

import { SlotStoreEngineHalf } from '../capture/slot-store/engine-half.ts';
import { modelOfRows, recordedSlotRows } from './recorded-rows.ts';
import type { ScheduleCheckOptions } from './schedule-check.ts';

export const slotStoreCheck: ScheduleCheckOptions = {
  capture: (config, rowModel) => new SlotStoreEngineHalf(modelOfRows(rowModel), config),
  rows: recordedSlotRows,
};
