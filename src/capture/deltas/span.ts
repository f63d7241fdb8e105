/**
 * The index of a `deltas` payload: one span per opted-in request of the step, in the order of the rows.
 *
 *     index   [ request, first position, number of rows ][ request, … ]
 *     rows    [ row, row, row, …                        ][ row, …     ]
 */
export const SPAN_LENGTH = 3;
