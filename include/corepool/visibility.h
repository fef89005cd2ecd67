/* corepool/visibility.h: marks the exported symbols; everything else in the library is hidden. */
#ifndef COREPOOL_VISIBILITY_H
#define COREPOOL_VISIBILITY_H

#define COREPOOL_PUBLIC __attribute__((visibility("default")))

/* For what is called so often that a jump more counts: through the address table instead of a stub. */
#if defined(__GNUC__) && !defined(__clang__)
#define COREPOOL_CALLED_OFTEN __attribute__((noplt))
#else
#define COREPOOL_CALLED_OFTEN
#endif

#endif
