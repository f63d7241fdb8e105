/**
 * The index of a `host-cache` payload: the rows of the requests that the worker takes to end with this step, as ranges
 * of positions.
 *
 *     index   [ request, first position, number of rows ][ request, … ]
 *     rows    [ row, row, row, …                        ][ row, …     ]
 */
export const SPAN_LENGTH = 3;
