"""Apply: carry a plan out on the machine this runs on."""
