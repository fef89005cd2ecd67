/* tests/support/inline.h: put before a test of corepool_checkout and corepool_checkin, makes it one of the inline functions. */
#ifndef SUPPORT_INLINE_H
#define SUPPORT_INLINE_H

#include <corepool/inline.h>

#define corepool_checkout corepool_inline_checkout
#define corepool_checkin corepool_inline_checkin

#endif
